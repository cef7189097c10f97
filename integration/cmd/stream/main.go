// Command stream sends numbered datagrams and says when the last of them came, for
// measuring how soon a network is cut:
//
//	stream send ADDRESS:PORT     sends one each millisecond
//	stream listen ADDRESS:PORT   answers each line on standard input with how many have
//	                             come and when the last did, Unix nanoseconds
//
// It is put into guests, so it takes nothing but the kernel.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stream:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want send or listen and an address, have %q", args)
	}
	switch args[0] {
	case "send":
		return send(args[1])
	case "listen":
		return listen(args[1])
	}
	return fmt.Errorf("want send or listen, have %q", args[0])
}

// send goes on whatever happens to the network: that is what is measured.
func send(to string) error {
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	for range time.Tick(time.Millisecond) {
		_, _ = c.Write([]byte("provost"))
	}
	return nil
}

func listen(at string) error {
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var count uint64
	var last time.Time
	go func() {
		b := make([]byte, 64)
		for {
			if _, _, err := c.ReadFrom(b); err != nil {
				return // it was closed
			}
			mu.Lock()
			count, last = count+1, time.Now()
			mu.Unlock()
		}
	}()
	fmt.Println("listening")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		mu.Lock()
		fmt.Println(count, last.UnixNano())
		mu.Unlock()
	}
	return c.Close()
}
