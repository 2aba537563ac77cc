package plan

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Prices are what AWS asks, in US dollars. Free allowances, discounts and taxes
// are not taken into account.
type Prices struct {
	List     float64 // 1,000 LISTs
	Get      float64 // 1,000 GETs
	KMS      float64 // 1,000 KMS requests
	Transfer float64 // a GB (10^9 bytes) that leaves AWS; 0 for one that does not
}

// DefaultPrices returns the list prices of us-east-1: "Amazon S3 pricing"
// (requests of S3 Standard, data transfer out to the internet, first tier) and
// "AWS KMS pricing" (symmetric keys). Other regions differ by some per cent.
func DefaultPrices() Prices {
	return Prices{List: 0.005, Get: 0.0004, KMS: 0.003, Transfer: 0.09}
}

// ParsePrices reads prices written as "list=0.005,get=0.0004,kms=0.003,
// transfer=0.09": dollars per 1,000 requests and per GB. What is not named
// keeps its default.
func ParsePrices(s string) (Prices, error) {
	p := DefaultPrices()
	var wrong []error
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		var to *float64
		switch strings.TrimSpace(name) {
		case "list":
			to = &p.List
		case "get":
			to = &p.Get
		case "kms":
			to = &p.KMS
		case "transfer":
			to = &p.Transfer
		default:
			wrong = append(wrong, fmt.Errorf("%q is no price: there are list, get and kms (USD per 1,000) and transfer (USD per GB)", name))
			continue
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || x < 0 || math.IsNaN(x) || math.IsInf(x, 0) {
			wrong = append(wrong, fmt.Errorf("%s: %q is no price: write US dollars, as in list=0.005", name, value))
			continue
		}
		*to = x
	}
	return p, errors.Join(wrong...)
}

// Cost is what a month costs, in US dollars.
type Cost struct{ Lists, Gets, KMS, Transfer float64 }

// Requests returns what requests to S3 cost.
func (c Cost) Requests() float64 { return c.Lists + c.Gets }

// Total returns what all of it costs.
func (c Cost) Total() float64 { return c.Lists + c.Gets + c.KMS + c.Transfer }

// Month returns what a month of a load costs.
func (p Prices) Month(l Load) Cost {
	return Cost{
		Lists:    l.Lists() * MonthDays / 1000 * p.List,
		Gets:     l.Gets * MonthDays / 1000 * p.Get,
		KMS:      l.KMS * MonthDays / 1000 * p.KMS,
		Transfer: (l.Bytes + l.ListingBytes) * MonthDays / 1e9 * p.Transfer,
	}
}
