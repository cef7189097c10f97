package guestagent_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/provostd/provost/guestagent"
)

// A unix socket stands in for a port; its end of file is final.
func TestOpenPortSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "port")
	if _, err := guestagent.OpenPort(path); err == nil {
		t.Fatal("a port that does not exist is opened")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := guestagent.OpenPort(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	host, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		s, err := bufio.NewReader(host).ReadString('\n')
		if err == nil {
			_, err = io.WriteString(host, s)
		}
		done <- errors.Join(err, host.Close())
	}()
	if _, err := io.WriteString(p, "to and fro\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(p)
	if err != nil || string(b) != "to and fro\n" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := guestagent.OpenPort(path); err == nil {
		t.Error("a socket that nobody listens at is opened")
	}
}
