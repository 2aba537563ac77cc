package control

import (
	"fmt"
	"net/http"
	"strconv"
)

// Coverage says which days of which account and region are settled: the answer
// to GET /v1/coverage.
type Coverage struct {
	Schema int           `json:"schema"`
	Days   []string      `json:"days"` // YYYY-MM-DD, UTC, ascending
	Rows   []CoverageRow `json:"rows"`
}

// CoverageRow is one account and region of a source, all its log types and
// outputs together.
type CoverageRow struct {
	Source       string         `json:"source"`
	Organization string         `json:"organization"`
	Account      string         `json:"account"`
	AccountName  string         `json:"account_name,omitempty"`
	Region       string         `json:"region"`
	Cells        []CoverageCell `json:"cells"` // one for each day
}

// CoverageCell is one day of a row.
type CoverageCell struct {
	State DayState `json:"state"`
	// Objects were settled, of all log types; of the output that has fewest.
	Objects int64 `json:"objects"`
	Parked  int   `json:"parked"`
	Pending int   `json:"pending"`
}

// DayState is how a day stands.
type DayState string

const (
	// DaySettled: all that was found of it is settled.
	DaySettled DayState = "settled"
	// DayMissing: some of it was found and is not settled, or it has not been
	// listed to its end yet.
	DayMissing DayState = "missing"
	// DayParked: some of it is parked, all else settled.
	DayParked DayState = "parked"
	// DayEmpty: it was listed to its end, and no object of it was there.
	DayEmpty DayState = "empty"
	// DayNotCollected: it lies before the start, or the stream is not known.
	DayNotCollected DayState = "not-collected"
)

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
