package notify

import (
	"strings"
	"testing"
)

// TestAddressesAreSecrets: those of many receivers hold one in their path, and what is wrong with
// an address is logged.
func TestAddressesAreSecrets(t *testing.T) {
	for _, u := range []string{"http://receiver.example.net/hook/s3cret?t=s3cret", "https://s3cret:s3cret@receiver.example.net/s3cret", "https://receiver.example.net/s3cret#s3cret",
		"https://receiver.example.net/s3cret\x7f", "ftp://receiver.example.net/s3cret"} {
		_, err := NewWebhook(HTTPConfig{URL: u}, "")
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", u, err)
		}
		if err != nil && !strings.ContainsRune(u, 0x7f) && !strings.Contains(err.Error(), "receiver.example.net") {
			t.Errorf("%q: %v does not say which", u, err)
		}
	}
}
