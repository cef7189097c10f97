// Package egress tests the packet filter with a real guest on a bridge, whose root
// tries to get round it; it holds no code of its own.
package egress
