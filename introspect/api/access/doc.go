// Package access decides who may read what a host has sealed. It promises that
// a request without an identity reaches no route, that an identity comes from
// the transport only (a peer's credentials, a client certificate, a token) and
// never from what a request says of itself, and that no payload leaves before
// its disclosure is sealed. It knows nothing of routes: those ask it.
package access
