package s3source

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/regions"
)

// Auto as Config.Region asks S3 where the bucket is.
const Auto = "auto"

// Config is what a Source needs to know. Durations and numbers of zero mean
// their default.
type Config struct {
	Bucket string
	// Region is the bucket's region, an old name of one (EU_IRELAND), or Auto.
	Region string
	// Endpoint is a URL without path: a VPC endpoint or another S3
	// implementation; "" = AWS. Whether http:// is fit is not decided here.
	Endpoint      string
	PathStyle     bool
	FIPS          bool
	DualStack     bool
	RequesterPays bool
	BucketOwner   string // account id that must own the bucket; "" = any

	// CAFile holds certificates in PEM that are trusted beside the system's.
	// It is read when the first connection is made.
	CAFile string
	// Proxy is the URL of a proxy; "" = as the environment says (HTTPS_PROXY,
	// NO_PROXY). This machine and the local link, where instances and
	// containers get their credentials, are reached without it.
	Proxy string

	Credentials Credentials

	ConnectTimeout time.Duration // TCP, and TLS again; default 10 s
	HeaderTimeout  time.Duration // from request to the answer's first line; default 30 s
	StallTimeout   time.Duration // without a byte of an answer; default 30 s
	home           string        // where STS is asked, and S3 first; "" = see there

	// MaxConns is how many idle connections are kept. How many are used at
	// once is for the caller to bound. Default 64.
	MaxConns int
}

// normalize returns the config with its defaults, or what can't work in it.
func (c Config) normalize() (Config, error) {
	defaults(&c)
	fail := func(hint, format string, args ...any) (Config, error) {
		return c, &fault.Error{
			Kind: fault.Misconfigured, Op: "setting up " + bucketName(c.Bucket),
			Err: fmt.Errorf(format, args...), Hint: hint,
		}
	}

	switch {
	case c.Bucket == "":
		return fail("set bucket", "no bucket is named")
	case strings.HasSuffix(c.Bucket, "--x-s3"):
		// "General purpose buckets: lexicographical order … directory buckets:
		// no": ListObjectsV2 in the S3 API reference. A watermark needs order.
		return fail("deliver the trail to a general purpose bucket", "a directory bucket is not listed in order")
	}
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
			return fail(`write endpoint = "https://host" or "https://host:port"`, "the endpoint is not a URL with a host")
		case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
			return fail(`write endpoint = "https://host" or "https://host:port"`, "the endpoint has more than a host and a port")
		case c.FIPS || c.DualStack:
			return fail("leave out fips and dual_stack, and name the FIPS or dual-stack host as endpoint",
				"fips and dual_stack choose among AWS's endpoints, and another endpoint is set")
		}
		c.Endpoint = strings.TrimRight(c.Endpoint, "/")
	}
	if err := c.normalizeRegion(); err != nil {
		return fail("see trailpoll regions", "%w", err)
	}
	if c.Proxy != "" {
		u, err := url.Parse(c.Proxy)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
			// The URL may hold a password, and so may the parser's error.
			return fail(`write proxy = "http://host:port"`, "the proxy is not a URL of http, https or socks5 with a host")
		}
	}
	if hint, err := c.Credentials.normalize(); err != nil {
		return fail(hint, "%w", err)
	}
	if hint, err := c.settle(); err != nil {
		return fail(hint, "%w", err)
	}
	return c, nil
}

func defaults(c *Config) {
	if c.Region == "" {
		c.Region = Auto
	}
	if c.Credentials.Type == "" {
		c.Credentials.Type = AutoCredentials
	}
	for _, d := range []struct {
		value *time.Duration
		at    time.Duration
	}{
		{&c.ConnectTimeout, 10 * time.Second},
		{&c.HeaderTimeout, 30 * time.Second},
		{&c.StallTimeout, 30 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.at
		}
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 64
	}
}

// normalizeRegion makes old names new ones. At AWS a region must be possible;
// other implementations call theirs as they like.
func (c *Config) normalizeRegion() error {
	if c.Region == Auto {
		// The name of a VPC endpoint says where it is.
		if r := regionIn(c.Endpoint); r != "" {
			c.Region = r
		}
		return nil
	}
	if r, ok := regions.Lookup(c.Region); ok {
		c.Region = r.Name
	}
	if c.Endpoint != "" {
		return nil
	}
	return c.reachable(c.Region)
}

// reachable reports why AWS has no endpoint in a region for this config; nil
// if it has.
func (c *Config) reachable(region string) error {
	if c.Endpoint != "" {
		if strings.Trim(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || region == "" {
			return errors.New("the region's name has other characters than letters, digits and hyphens")
		}
		return nil
	}
	if _, err := regions.S3Endpoint(region, regions.Variant{FIPS: c.FIPS, DualStack: c.DualStack}); err != nil {
		return err
	}
	if c.FIPS && !regions.HasS3FIPS(region) {
		return fmt.Errorf("S3 has no FIPS endpoint in %s", region)
	}
	return nil
}

// settle decides where STS is asked: in the configured region, else in the main
// region of the roles' partition. The two must agree.
func (c *Config) settle() (hint string, err error) {
	at, known := regions.PartitionOf(c.Region)
	if known {
		c.home = c.Region
	} else if c.Region == Auto || c.Endpoint != "" {
		c.home = c.Credentials.mainRegion()
	}
	for _, r := range c.Credentials.Roles {
		if known && c.Endpoint == "" && arnPartition(r.ARN) != at.ID {
			return "partitions share no credentials: use a role and a bucket of the same one",
				fmt.Errorf("the role %s is of partition %s, and region %s is of %s", r.ARN, arnPartition(r.ARN), c.Region, at.ID)
		}
	}
	if e := c.Credentials.STSEndpoint; e != "" {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return `write sts_endpoint = "https://sts.eu-central-1.amazonaws.com"`, errors.New("the endpoint of STS is not a URL of a host")
		}
		return "", nil
	}
	if len(c.Credentials.Roles) > 0 && c.FIPS && c.home != "" && !regions.HasSTSFIPS(c.home) {
		return `set sts_endpoint to one of another region, like "https://sts-fips.us-east-1.amazonaws.com"`,
			fmt.Errorf("STS has no FIPS endpoint in %s", c.home)
	}
	return "", nil
}
