// Package client talks to a provostd: the words of its interface, and an HTTP
// client for its unix socket and for its listeners in the network, with a method
// for each route. Streams go on over lost connections. It promises to link
// nothing but formats, so that the static command line can use it anywhere.
package client
