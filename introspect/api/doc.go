// Package api serves what a host has sealed: the control interface on a unix
// socket for the people of the host, and the logs' public tiles over HTTP. It
// promises to change nothing but what an operator asked for, and to disclose no
// payload on the tiles listener.
package api
