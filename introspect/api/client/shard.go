package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Archive is the archive of a closed log, whole and on disk.
type Archive struct {
	Log      string `json:"log"` // origin
	File     string `json:"file"`
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"` // of the file, hexadecimal
	Size     uint64 `json:"size"`   // entries
	Root     string `json:"root"`
	Payloads uint64 `json:"payloads"` // that are in it
	Withheld bool   `json:"withheld"` // but for those that verification needs
}

// ExportShard has the daemon write the archive of a closed log to a file of its host,
// which is not there yet.
func (c *Client) ExportShard(ctx context.Context, log, file string, withhold bool) (*Archive, error) {
	v := url.Values{"log": {log}, "file": {file}, "withhold": {strconv.FormatBool(withhold)}}
	var a Archive
	return &a, c.call(ctx, http.MethodPost, "/v1/shards/export", v, &a)
}

// Dropped is a log that is kept no longer.
type Dropped struct {
	Log    string `json:"log"` // origin
	Size   uint64 `json:"size"`
	Entry  uint64 `json:"entry"`  // of the host log, which says so
	SHA256 string `json:"sha256"` // of the archive that has it
}

// DropShard has the daemon drop a closed log of which a file of its host is the archive.
// Reason and requester are sealed. It cannot be taken back.
func (c *Client) DropShard(ctx context.Context, log, archive, reason, requester string) (*Dropped, error) {
	v := url.Values{"log": {log}, "archive": {archive}, "reason": {reason}, "requester": {requester}}
	var d Dropped
	return &d, c.call(ctx, http.MethodPost, "/v1/shards/drop", v, &d)
}
