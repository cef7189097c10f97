package virt

import (
	"context"
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/provostd/provost/chain/record"
)

var (
	// ErrNotFound: libvirt knows no such domain. It is of class record.ErrReject.
	ErrNotFound = errors.New("no such domain")
	// ErrDisconnected: there is no connection to libvirt at the moment. It is of class record.ErrRetry.
	ErrDisconnected = errors.New("not connected to libvirt")
	// ErrInactive: the operation needs a running domain. It is of class record.ErrReject.
	ErrInactive = errors.New("the domain does not run")
	// ErrBusy: too many calls for this domain wait for libvirt already. It is of class record.ErrRetry.
	ErrBusy = errors.New("earlier calls for this domain have not come back")
)

// classify adds the error class to an error of libvirt: what depends on the moment is to be tried
// again, what depends on the request is not.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, record.ErrRetry) || errors.Is(err, record.ErrReject) || errors.Is(err, record.ErrFatal) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", record.ErrRetry, err)
	}
	var le libvirt.Error
	if !errors.As(err, &le) {
		return err
	}
	switch le.Code {
	case libvirt.ERR_NO_DOMAIN:
		return fmt.Errorf("%w: %w: %w", record.ErrReject, ErrNotFound, err)
	case libvirt.ERR_OPERATION_INVALID, libvirt.ERR_INVALID_ARG, libvirt.ERR_XML_ERROR, libvirt.ERR_XML_DETAIL, libvirt.ERR_NO_SUPPORT,
		libvirt.ERR_CONFIG_UNSUPPORTED, libvirt.ERR_ARGUMENT_UNSUPPORTED, libvirt.ERR_OPERATION_UNSUPPORTED, libvirt.ERR_AUTH_FAILED, libvirt.ERR_ACCESS_DENIED,
		libvirt.ERR_OPERATION_DENIED:
		return fmt.Errorf("%w: %w", record.ErrReject, err)
	default:
		return fmt.Errorf("%w: %w", record.ErrRetry, err)
	}
}
