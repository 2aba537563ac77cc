// Package statusutil stands in for a helper of the collector's that can't be
// had everywhere as a module of its own: what a refusal of the OTLP receiver
// looks like in its answer's body. No record passes through it.
package statusutil

import (
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NewStatusFromMsgAndHTTPCode returns the status that an HTTP status stands for.
func NewStatusFromMsgAndHTTPCode(message string, code int) *status.Status {
	c := codes.Unknown
	switch code {
	case http.StatusBadRequest:
		c = codes.InvalidArgument
	case http.StatusTooManyRequests:
		c = codes.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c = codes.Unavailable
	}
	return status.New(c, message)
}

// GetRetryInfo returns the detail that says when to try again, nil if there is
// none.
func GetRetryInfo(s *status.Status) *errdetails.RetryInfo {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info
		}
	}
	return nil
}
