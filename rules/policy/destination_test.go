package policy

import "testing"

func TestParseDestination(t *testing.T) {
	for s, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.0/24 0 ", "192.0.2.7": "192.0.2.7/32 0 ", "2001:db8::1": "2001:db8::1/128 0 ", "2001:db8::/32": "2001:db8::/32 0 ",
		"192.0.2.7:443": "192.0.2.7/32 443 ", "192.0.2.0/24:53/udp": "192.0.2.0/24 53 udp", "[2001:db8::1]:443/tcp": "2001:db8::1/128 443 tcp",
		"[2001:db8::/32]:53": "2001:db8::/32 53 ",
	} {
		d, err := ParseDestination(s)
		if got := d.Prefix.String() + " " + itoa(d.Port) + " " + d.Protocol; err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", s, got, err, want)
		}
	}
	for s, want := range map[string]string{"API.example.net": "api.example.net 0 ", "a.example:443/tcp": "a.example 443 tcp"} {
		d, err := ParseDestination(s)
		if got := d.Name + " " + itoa(d.Port) + " " + d.Protocol; err != nil || got != want || d.Prefix.IsValid() {
			t.Errorf("%s is %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "192.0.2.1/24", "192.0.2.7:", "192.0.2.7:0", "192.0.2.7:65536", "192.0.2.7:080", "192.0.2.7:80/sctp", "192.0.2.7:80/",
		"[192.0.2.7]:80", "[2001:db8::1]", "[2001:db8::1", "[]:1", "example", "example:443", "-a.example", "a..example", "a.example.1", "*.example.org", "192.0.2.7:1:2", "fe80::1%eth0", "::ffff:192.0.2.1"} {
		if d, err := ParseDestination(s); err == nil {
			t.Errorf("%q is read as %v", s, d)
		}
	}
}

func itoa(n uint16) string {
	if n == 0 {
		return "0"
	}
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}
