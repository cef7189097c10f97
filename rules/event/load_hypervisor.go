package event

import "github.com/provostd/provost/chain/record"

// loadHypervisor takes over what only the host's own classes carry. Numbers of
// which 0 says nothing are missing then.
func (e *Event) loadHypervisor(h *record.Hypervisor) {
	e.SetString(LibvirtWord, h.Word)
	e.SetString(LibvirtDevice, h.Device)
	e.SetString(LibvirtPath, h.Path)
	e.SetString(LibvirtAddress, h.Address)
	e.SetString(LibvirtOld, h.OldValue)
	e.SetString(LibvirtNew, h.NewValue)
	e.SetString(LibvirtStatus, h.Status)
	e.SetStrings(LibvirtNumbers, append([]string(nil), h.Numbers...))
	e.SetString(LibvirtSide, h.Side)
	e.SetString(LibvirtLearned, h.Learned)
	e.nonzero(LibvirtOmitted, h.Omitted)
	e.nonzero(LibvirtRepeats, h.Repeats)
	if c := h.ClaimedBy; c != nil {
		e.SetString(LibvirtClaimedBy, c.User)
	}
	var paths, lines []string
	for _, c := range h.Changes {
		if c == nil {
			continue
		}
		paths = append(paths, c.Path)
		lines = append(lines, record.ChangeText(c))
	}
	e.SetStrings(LibvirtChanged, paths)
	e.SetStrings(LibvirtChanges, lines)
	if i := h.Image; i != nil {
		e.SetString(LibvirtRole, i.Role)
		e.digest(LibvirtHashSHA256, i.Sha256)
		e.SetNumber(LibvirtSize, i.Size)
	}
}
