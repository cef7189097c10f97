// Package client talks to a provostd: the words of its control interface and
// an HTTP client for its unix socket. It promises to link nothing but the
// record format, so that the static command line can use it anywhere.
package client
