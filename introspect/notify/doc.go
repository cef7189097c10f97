// Package notify brings alerts to where people see them: receivers on the
// network, system logs, programs. It promises that an alert handed to it is
// durable before its outcome is sealed; that it is then delivered at least
// once to each of its channels, or that its giving up is sealed; and that no
// channel delays enforcement or another channel.
//
// # The queue
//
// What an alert says stands in its verdict, which is sealed. The queue holds
// references: one row of the ledger's meta rows for each alert and channel,
// written by the commit that seals the outcome of the alert action, and
// deleted by the commit that seals what became of it. So an alert can be
// neither lost nor left behind between the two, there is no second store, and
// payloads that are erased are in no queue either.
//
// A crash between a delivery and the commit that seals it has the alert
// delivered again on the next start: receivers tell such repetitions by the
// alert's ID.
//
// # Rows
//
// Key: "alert/", channel name, "/", 8 bytes sequence, big-endian. Value:
//
//	offset size
//	0      1    version, 1
//	1      4    log number of the verdict, big-endian
//	5      8    index of the verdict
//	13     4    index of the action in the verdict
//	17     8    when it was queued, Unix nanoseconds
//
// # Order and fairness
//
// Alerts of one domain reach a channel in the order of their outcomes. Domains
// take turns: one with many alerts, or with one that a receiver will not take,
// delays its own only. Of a channel's queue one domain gets a share only.
package notify
