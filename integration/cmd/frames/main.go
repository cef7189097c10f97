// Command frames sends and watches raw Ethernet frames, for tests of packet filters:
//
//	frames send DEVICE HEX...    sends each frame
//	frames watch DEVICE          prints each frame that comes in, until standard input ends
//
// It is put into guests, so it takes nothing but the kernel.
package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "frames:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want send or watch and a device, have %q", args)
	}
	dev, err := net.InterfaceByName(args[1])
	if err != nil {
		return err
	}
	all := uint16(syscall.ETH_P_ALL)<<8 | uint16(syscall.ETH_P_ALL)>>8
	s, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, int(all))
	if err != nil {
		return err
	}
	if err := syscall.Bind(s, &syscall.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}); err != nil {
		return err
	}
	switch args[0] {
	case "send":
		for _, h := range args[2:] {
			b, err := hex.DecodeString(h)
			if err != nil {
				return err
			}
			if err := syscall.Sendto(s, b, 0, &syscall.SockaddrLinklayer{Ifindex: dev.Index, Halen: 6}); err != nil {
				return err
			}
		}
		return nil
	case "watch":
		fmt.Println("watching")
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
		buf := make([]byte, 64<<10)
		for {
			n, from, err := syscall.Recvfrom(s, buf, 0)
			if err != nil {
				return err
			}
			if l, ok := from.(*syscall.SockaddrLinklayer); ok && l.Pkttype == syscall.PACKET_OUTGOING {
				continue
			}
			fmt.Printf("%x\n", buf[:n])
		}
	}
	return fmt.Errorf("there is no %q", args[0])
}
