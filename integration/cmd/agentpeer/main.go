// Command agentpeer is a host for one agent, without a ledger: it connects to
// the host end of a guest's channel, verifies every frame and prints each
// record as a line of JSON.
//
//	go run ./integration/cmd/agentpeer DIR/agent.sock
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/provostd/provost/chain/record"
	"github.com/provostd/provost/guestagent/agenttest"
	"github.com/provostd/provost/guestagent/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "usage: agentpeer SOCKET")
		return 2
	}
	h := agenttest.Host{Books: agenttest.NewBooks(), Beat: wire.HeartbeatEvery,
		OnRecord: func(o wire.Opened) { fmt.Fprintln(stdout, line(o)) }}
	said := ""
	for ctx.Err() == nil {
		c, err := net.Dial("unix", args[0])
		if err == nil {
			err = h.Serve(ctx, c)
			_ = c.Close()
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			fmt.Fprintln(stderr, "agentpeer:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	v := h.Books.View()
	fmt.Fprintf(stderr, "agentpeer: session %016x, %d frames, %d records\n", v.Session, v.Frame, len(v.Records))
	for n, l := range v.Lanes {
		fmt.Fprintf(stderr, "agentpeer: lane %x: counted %d, arrived %d, dropped %d\n", n, l.Counted, l.Arrived, l.Dropped)
	}
	return 0
}

// line is one record as JSON. Byte strings are base64, as protobuf has it.
func line(o wire.Opened) string {
	out := map[string]any{"class": o.Header.Class.String(), "sequence": o.Header.Sequence, "lane": o.Header.Lane,
		"lane_sequence": o.Header.LaneSequence, "time": o.Header.Time}
	m, err := record.Decode(o.Header.Class, o.Payload)
	if err != nil {
		out["error"] = err.Error()
	} else if b, err := protojson.Marshal(m.(proto.Message)); err == nil {
		out["payload"] = json.RawMessage(b)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return fmt.Sprintf(`{"error":%q}`, err)
	}
	return string(b)
}
