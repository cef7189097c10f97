// Package wire is the protocol between the guest agent and the host on one
// virtio-serial port. It promises that a decoder given any bytes returns a
// message, or an error, and never more memory than its limits. Guest agent and
// host import it; it does no IO of its own beyond the reader and the writer it
// is given, and reads no clock. All integers are big-endian.
//
// # Envelope
//
// Every message travels in an envelope of 24 bytes, version 1:
//
//	offset size field
//	     0    4 magic and version: "PVW1"
//	     4    1 type (see Type)
//	     5    3 reserved = 0
//	     8    4 length of the body in bytes, at most MaxBody
//	    12    8 sequence: counts the sender's envelopes on this connection from 0
//	    20    4 CRC-32C of bytes 0 to 19 and of the body
//	    24    n body
//
// The port has no message boundaries and no marker for a peer that went away:
// a reader that meets anything but a whole, correct envelope returns
// ErrGarbage and scans on to the next magic. A sequence that does not follow
// says that bytes were lost; Hello and Ident start a new count.
//
// The agent answers every Hello, also one it has answered before. The host
// repeats a Hello that was read and not answered.
//
// # Connection
//
//	host  -> agent  Hello      who the domain is, which epoch, what is sealed
//	agent -> host   Ident      who the agent is, signed over the transcript
//	host  -> agent  Welcome    accepted, or refused with a reason
//	agent -> host   Frame      records and the signed statement over them
//	host  -> agent  Ack        sealed, or refused with a reason
//	both            Heartbeat  alive; the host's carries a nonce to be echoed
//	host  -> agent  Command    something to do, signed by the host
//	agent -> host   Result     what became of it, signed by the agent
//
// The agent says nothing until it has read a Hello, but for the answer to a
// heartbeat: a session that the host does not know tells it that the agent was
// started anew, which the port does not, and that a Hello is due. It sends one
// such heartbeat when it opens the port. A host that connects anew
// sends a new Hello, and whatever the agent had in flight is sent again from
// the frame after the last sealed one.
//
// Strings and byte strings are a 2-byte length and the bytes; "vec32" has a
// 4-byte length.
//
// Hello body, version 1:
//
//	1 lowest, 1 highest protocol version
//	str log origin
//	16 domain UUID, 8 incarnation, 16 epoch, 16 generation id (zero: unknown)
//	32 nonce
//	8 session, 8 frame, 32 frame hash of the last sealed frame (session 0: none)
//	8 leaf index, 32 leaf hash of that frame's statement
//	32 Ed25519 key that commands are signed with (left out: no commands)
//	at most 1024 bytes that a later version defines and this one ignores
//
// Ident body:
//
//	1 chosen version
//	str agent version, 16 boot id
//	32 Ed25519 public key, 8 session
//	16 epoch, 32 nonce, repeated from the Hello
//	8 frame, 32 frame hash: newest frame the agent has made (frame 0: none)
//	8 acked frame, 8 leaf index, 32 leaf hash: newest ack the agent has (frame 0: none)
//	vec32 hooks: a record.Hooks payload
//	64 signature over SHA-256("provost/handshake/v1" || 0x00 ||
//	   SHA-256(Hello body) || Ident body without the signature)
//
// Frame body:
//
//	vec32 statement, 64 signature over "provost/frame/v1" || 0x00 || statement
//	32 seed, from which the salts of the records are derived
//	count times: 40 record header, vec32 payload
//
// Statement, signed by the agent and sealed for ever:
//
//	0  4 magic and version: "PVF1"
//	4 16 domain UUID, 16 epoch, 8 session
//	44 8 frame number, from 1
//	52 32 frame hash of the frame before (zero in the first):
//	      frame hash = SHA-256(statement)
//	84 4 count of records, 8 sequence of the first
//	96 32 RFC 6962 root of the record hashes
//	128 8 guest time of signing, CLOCK_BOOTTIME nanoseconds
//	136 2 number of lanes, then for each lane:
//	      4 lane, 8 first and 8 next lane sequence,
//	      2 number of drops, then for each: 2 class, 1 reason, 8 count
//
// The lane part makes loss provable (invariant I4). A lane is a kernel ring on
// one CPU. First is the Next of the statement before (0 in the session's
// first), Next is how far the lane is accounted for. Over the frames of a
// session, counted - arrived - dropped must never be above zero for any lane:
// what is missing beyond that is a hole nobody owned up to. An agent that has
// read a record out of order keeps Next behind it until the rest has come. A
// lane that has neither moved, nor dropped, nor a record in the frame is left out;
// its First is the Next of the newest statement that names it.
//
// Ack body: 8 session, 8 frame, 8 leaf index, 32 leaf hash, 1 status (0
// sealed, 1 refused), str reason.
//
// Heartbeat body: 8 nonce (host: a fresh one; agent: the host's newest), 8
// session, 8 time on the sender's clock, 8 newest frame of the agent.
//
// Welcome body: 1 status (0 accepted, 1 refused), str reason, 4 heartbeat
// interval in milliseconds, 4 ack window in frames, 4 ack window in bytes.
//
// Command body:
//
//	16 id, drawn for this command
//	16 epoch and 32 nonce, repeated from the Hello of the conversation
//	8 expiry: host wall time, nanoseconds since 1970
//	vec32 request
//	64 signature over "provost/command/v1" || 0x00 || the bytes before it
//
// Request: 1 kind (1 stop, 2 kill_process), str requester, str reason, vec32
// arguments of the kind (stop: none; kill_process: 8 session that told of the
// process, 4 its number, above 1, 8 its start, CLOCK_BOOTTIME nanoseconds).
//
// An agent carries a command out when the key is the one that Hello named,
// epoch and nonce are those of the conversation it is in, the id is new in it,
// and the host's clock, which heartbeats tell, has not passed the expiry.
// Whatever else it is asked, it answers why not.
//
// Result body:
//
//	16 id of the command
//	1 status: 0 done, 1 unsupported kind, 2 refused, 3 failed, 4 the process is gone
//	vec32 reason, UTF-8
//	64 signature with the agent's key over "provost/result/v1" || 0x00 ||
//	   SHA-256(Command body) || the bytes before it
package wire
