package s3source

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// STS and S3 are asked in the partition that the configuration speaks of, at
// the endpoints that it chooses.
func TestWhereSTSIs(t *testing.T) {
	bare(t)
	gov := "arn:aws-us-gov:iam::111122223333:role/r"
	cn := "arn:aws-cn:iam::111122223333:role/r"
	for _, tt := range []struct {
		name   string
		region string // that everything is signed for
		change func(*Config)
		hosts  string
	}{
		{"named", "eu-west-1", func(c *Config) { c.Region = "eu-west-1"; c.Credentials.Roles = []Role{{ARN: readARN}} },
			"sts.eu-west-1.amazonaws.com acme-cloudtrail-logs.s3.eu-west-1.amazonaws.com"},
		{"auto", "us-east-1", func(c *Config) { c.Credentials.Roles = []Role{{ARN: readARN}} },
			"sts.us-east-1.amazonaws.com acme-cloudtrail-logs.s3.us-east-1.amazonaws.com"},
		{"auto in GovCloud", "us-gov-west-1", func(c *Config) { c.Credentials.Roles = []Role{{ARN: gov}} },
			"sts.us-gov-west-1.amazonaws.com acme-cloudtrail-logs.s3.us-gov-west-1.amazonaws.com"},
		{"auto in GovCloud with FIPS", "us-gov-west-1", func(c *Config) { c.FIPS = true; c.Credentials.Roles = []Role{{ARN: gov}} },
			"sts.us-gov-west-1.amazonaws.com acme-cloudtrail-logs.s3-fips.us-gov-west-1.amazonaws.com"},
		{"auto in China", "cn-north-1", func(c *Config) { c.Credentials.Roles = []Role{{ARN: cn}} },
			"sts.cn-north-1.amazonaws.com.cn acme-cloudtrail-logs.s3.cn-north-1.amazonaws.com.cn"},
		{"FIPS", "us-east-2", func(c *Config) { c.Region = "us-east-2"; c.FIPS = true; c.Credentials.Roles = []Role{{ARN: readARN}} },
			"sts-fips.us-east-2.amazonaws.com acme-cloudtrail-logs.s3-fips.us-east-2.amazonaws.com"},
		{"dual stack", "eu-west-1", func(c *Config) {
			c.Region = "eu-west-1"
			c.DualStack = true
			c.Credentials.Roles = []Role{{ARN: readARN}}
		}, "sts.eu-west-1.api.aws acme-cloudtrail-logs.s3.dualstack.eu-west-1.amazonaws.com"},
		{"an instance in GovCloud", "us-gov-east-1", func(c *Config) { c.Credentials = Credentials{Type: EC2Role} },
			"169.254.169.254 acme-cloudtrail-logs.s3.us-gov-west-1.amazonaws.com acme-cloudtrail-logs.s3.us-gov-east-1.amazonaws.com"},
		{"a VPC endpoint", "eu-west-1", func(c *Config) {
			c.Endpoint = "https://bucket.vpce-1a2b-3c4d.s3.eu-west-1.vpce.amazonaws.com"
			c.Credentials.Roles = []Role{{ARN: readARN}}
		}, "sts.eu-west-1.amazonaws.com acme-cloudtrail-logs.bucket.vpce-1a2b-3c4d.s3.eu-west-1.vpce.amazonaws.com"},
		{"an endpoint of STS", "eu-west-1", func(c *Config) {
			c.Region = "eu-west-1"
			c.Credentials.Roles = []Role{{ARN: readARN}}
			c.Credentials.STSEndpoint = "https://vpce-1a2b-3c4d.sts.eu-west-1.vpce.amazonaws.com"
		}, "vpce-1a2b-3c4d.sts.eu-west-1.vpce.amazonaws.com acme-cloudtrail-logs.s3.eu-west-1.amazonaws.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCloud(t)
			c.region = tt.region
			for _, arn := range []string{readARN, gov, cn} {
				c.roles[arn] = trustPolicy{principal: "arn:"}
			}
			c.offer(strings.Replace(sessionOf(middleARN, "i"), "arn:aws:", "arn:aws-us-gov:", 1), time.Hour)
			c.role = "middle"
			k, _ := c.issue(userARN, 0)
			s := c.source(func(cfg *Config) {
				cfg.Region = Auto
				cfg.Credentials = Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey}
				tt.change(cfg)
			})
			var hosts []string
			note := roundTrip(func(r *http.Request) (*http.Response, error) {
				if h := r.URL.Hostname(); !slices.Contains(hosts, h) {
					hosts = append(hosts, h)
				}
				return c.RoundTrip(r)
			})
			s.http = &http.Client{Transport: note, CheckRedirect: s.http.CheckRedirect}
			s.local = s.http
			if err := calls(t.Context(), s, "list"); err != nil {
				t.Errorf("%v, hint %q", err, fault.HintOf(err))
			}
			if got := strings.Join(hosts, " "); got != tt.hosts {
				t.Errorf("asked %s\nwant  %s", got, tt.hosts)
			}
			for _, e := range s.Endpoints() {
				if !strings.Contains(tt.hosts+" ", strings.TrimPrefix(e.URL, "https://")) {
					t.Errorf("%+v is not among %s", e, tt.hosts)
				}
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
