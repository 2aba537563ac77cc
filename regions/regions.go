// Package regions knows AWS's partitions and regions, their names, and the
// endpoints of the two services that trailpoll calls, S3 and STS. It is pure
// data with functions over it: no I/O, nothing that changes, safe for
// concurrent use. It imports nothing of ours.
//
// The data is that of the AWS SDK for Go (partitions.json and the endpoint
// rules of service/s3 and service/sts); a test holds the two together.
package regions

import (
	"cmp"
	"slices"
	"strings"
)

// Partition is a part of AWS with accounts, credentials and names of its own.
type Partition struct {
	// ID is how ARNs name it: aws, aws-us-gov, aws-cn …
	ID string
	// Title is its name in words.
	Title string
	// Main is the region that answers for the partition as a whole: where a
	// bucket is asked for whose region nobody said.
	Main string
	// Suffix ends the names of endpoints.
	Suffix string
	// DualStackSuffix ends the names of endpoints that answer over IPv6, too;
	// S3 alone keeps Suffix and says "dualstack" in the name.
	DualStackSuffix string
	// S3FIPS says whether S3 has FIPS 140 endpoints here.
	S3FIPS bool

	shapes []string // what stands before "-<word>-<number>" in its regions' names
}

// Region is one region.
type Region struct {
	Name      string // us-east-1
	Title     string // US East (N. Virginia)
	Partition string // the partition's ID
}

// Partitions returns all partitions, the public one first.
func Partitions() []Partition { return slices.Clone(partitions) }

// All returns all known regions, by partition and then by name.
func All() []Region { return slices.Clone(known) }

// ByID returns the partition that ARNs call id, and false if there is none.
func ByID(id string) (Partition, bool) {
	i := slices.IndexFunc(partitions, func(p Partition) bool { return p.ID == id })
	if i < 0 {
		return Partition{}, false
	}
	return partitions[i], true
}

// PartitionOf returns the partition of a region. A region need not be known:
// the shape of its name decides, so that a region which opens tomorrow works
// today. It reports false for a name that has no region's shape.
func PartitionOf(region string) (Partition, bool) {
	for _, p := range partitions {
		for _, shape := range p.shapes {
			if rest, ok := strings.CutPrefix(region, shape+"-"); ok && wordAndNumber(rest) {
				return p, true
			}
		}
	}
	return Partition{}, false
}

// wordAndNumber reports whether s is like "west-2".
func wordAndNumber(s string) bool {
	word, number, ok := strings.Cut(s, "-")
	return ok && word != "" && number != "" &&
		strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789") == "" && strings.Trim(number, "0123456789") == ""
}

// Lookup returns the known region that name means: its name in any case
// (US-EAST-1), the same with underscores or spaces (US_EAST_1), what older tools and
// S3's old API call it (US_STANDARD, EU, EU_IRELAND, US_WEST_OREGON), or its
// title (Europe (Ireland)).
func Lookup(name string) (Region, bool) {
	canonical := strings.NewReplacer("_", "-", " ", "-").Replace(strings.ToLower(strings.TrimSpace(name)))
	if r, ok := byName(canonical); ok {
		return r, true
	}
	if old, ok := legacy[canonical]; ok {
		return byName(old)
	}
	for _, r := range known {
		if strings.EqualFold(r.Title, strings.TrimSpace(name)) {
			return r, true
		}
	}
	return Region{}, false
}

func byName(name string) (Region, bool) {
	i := slices.IndexFunc(known, func(r Region) bool { return r.Name == name })
	if i < 0 {
		return Region{}, false
	}
	return known[i], true
}

// LegacyNames returns the old names of a region that Lookup understands, in
// order.
func LegacyNames(region string) []string {
	var names []string
	for old, name := range legacy {
		if name == region {
			names = append(names, strings.ToUpper(strings.ReplaceAll(old, "-", "_")))
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return names
}
