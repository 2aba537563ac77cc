package control

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/trailpoll/trailpoll/agent"
)

// Coverage says which days of which account and region are settled: the answer
// to GET /v1/coverage.
type Coverage struct {
	Schema int `json:"schema"`
	agent.Coverage
}

// maxCoverage is for how many days coverage can be had.
const maxCoverage = 400

// coverageDays reads the parameter days.
func coverageDays(r *http.Request) (int, error) {
	const usual = 30
	s := r.URL.Query().Get("days")
	if s == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxCoverage {
		return 0, &StatusError{http.StatusBadRequest, fmt.Errorf("days: %.20q is not a number from 1 to %d", s, maxCoverage)}
	}
	return n, nil
}
