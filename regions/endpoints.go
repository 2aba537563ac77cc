package regions

import (
	"fmt"
	"slices"
)

// Variant chooses among a service's endpoints in a region.
type Variant struct {
	FIPS      bool // with FIPS 140 validated cryptography
	DualStack bool // over IPv4 and IPv6
}

// S3Endpoint returns the host name of S3 in a region. Buckets are reached at
// <bucket>.<host>, or at <host>/<bucket> where the bucket's name holds a dot.
// It fails where there is no such endpoint: a region that can't be, or FIPS in
// a partition whose S3 has none (aws-cn).
func S3Endpoint(region string, v Variant) (string, error) {
	p, ok := PartitionOf(region)
	switch {
	case !ok:
		return "", notARegion(region)
	case v.FIPS && !p.S3FIPS:
		return "", fmt.Errorf("choosing the S3 endpoint of %s: partition %s has no FIPS endpoints for S3", region, p.ID)
	}
	host := "s3"
	if v.FIPS {
		host += "-fips"
	}
	if v.DualStack {
		host += ".dualstack"
	}
	return host + "." + region + "." + p.Suffix, nil
}

// STSEndpoint returns the host name of STS in a region: where roles are
// assumed. It fails for a region that can't be.
func STSEndpoint(region string, v Variant) (string, error) {
	p, ok := PartitionOf(region)
	if !ok {
		return "", notARegion(region)
	}
	host, suffix := "sts", p.Suffix
	if v.DualStack {
		suffix = p.DualStackSuffix
	}
	// GovCloud's ordinary STS endpoints are its FIPS endpoints; only dual
	// stack has a name of its own.
	if v.FIPS && (p.ID != "aws-us-gov" || v.DualStack) {
		host += "-fips"
	}
	return host + "." + region + "." + suffix, nil
}

func notARegion(region string) error {
	return fmt.Errorf("choosing an endpoint: %q is not the name of an AWS region", region)
}

// HasS3FIPS reports whether S3 has FIPS 140 endpoints in a region. Of a region
// that is not known it says what its partition has: it may have opened since.
func HasS3FIPS(region string) bool {
	if _, ok := byName(region); ok {
		return slices.Contains(s3FIPS, region)
	}
	p, ok := PartitionOf(region)
	return ok && p.S3FIPS
}

// HasSTSFIPS reports the same of STS.
func HasSTSFIPS(region string) bool {
	if _, ok := byName(region); ok {
		return slices.Contains(stsFIPS, region)
	}
	_, ok := PartitionOf(region)
	return ok
}
