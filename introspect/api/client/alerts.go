package client

import (
	"context"
	"net/http"
	"net/url"
)

// AlertChannels lists the channels of the host's configuration, and how they do.
func (c *Client) AlertChannels(ctx context.Context) ([]AlertChannel, error) {
	var all []AlertChannel
	return all, c.call(ctx, http.MethodGet, "/v1/alerts", nil, &all)
}

// TestAlert has a channel send a test alert, once.
func (c *Client) TestAlert(ctx context.Context, channel string) (*AlertTest, error) {
	var t AlertTest
	return &t, c.call(ctx, http.MethodPost, "/v1/alerts/"+url.PathEscape(channel)+"/test", nil, &t)
}
