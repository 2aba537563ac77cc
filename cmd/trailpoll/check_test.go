package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/check"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/checkpoint"
)

const denied = "User: arn:aws:iam::111122223333:user/trailpoll is not authorized to perform: "

// TestCheckNamesTheCause holds each broken set-up against the step that must
// name its cause, and what it must say to do.
func TestCheckNamesTheCause(t *testing.T) {
	t.Setenv("CHECK_SECRET", "hunter2-secret-key")
	t.Setenv("CHECK_SESSION", "hunter2-session-token")
	t.Setenv("CHECK_TOKEN", "hunter2-token")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	authority := outputtest.NewAuthority(t, "test")
	secure := func(t *testing.T, end time.Time, h http.Handler) string {
		t.Helper()
		cert, key := authority.Issue(t, end, "127.0.0.1")
		srv := httptest.NewUnstartedServer(h)
		srv.TLS = tlsOf(t, cert, key)
		srv.Config.ErrorLog = quiet()
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv.URL
	}
	const (
		account = "111122223333"
		failed  = check.Failed
		warning = check.Warning
	)
	logs := func(s *setting) { s.put("", account, "us-east-1", 6*time.Minute, s3test.Object{}) }
	tests := []struct {
		name    string
		region  string        // where S3 is; "" = us-east-1
		ahead   time.Duration // of S3's clock
		broken  func(s *setting)
		code    int // 0 = what the state says
		step    string
		state   check.State
		answer  string   // in the step's answer
		remedy  []string // in its remedy, each
		skipped string   // a step that is held back
		ok      string   // a step that goes on
	}{
		// The way.
		{name: "DNS", broken: func(s *setting) { s.endpoint = "https://s3.no-such-host.invalid" }, step: "reach", state: failed, answer: "no-such-host.invalid", remedy: []string{"no DNS answer"}, skipped: "list", ok: "credentials"},
		{name: "refused", broken: func(s *setting) { s.endpoint = "http://" + free(t) }, step: "reach", state: failed, answer: "refused", remedy: []string{"firewall", "endpoint"}, skipped: "get"},
		{name: "mute", broken: func(s *setting) { s.endpoint = "http://" + mute(t) }, step: "reach", state: failed, answer: "no answer in 3s", remedy: []string{"firewall"}, skipped: "list"},
		{name: "own CA is missing", broken: func(s *setting) { s.endpoint = secure(t, time.Now().Add(time.Hour), s.s3) }, step: "reach", state: failed, answer: "unknown authority", remedy: []string{"ca_file in [source.tls]"}},
		{name: "certificate has expired", broken: func(s *setting) {
			s.endpoint = secure(t, time.Now().Add(-time.Minute), s.s3)
			s.tail = fmt.Sprintf("[source.tls]\nca_file = %q\n--tls--\n", filepath.ToSlash(authority.File))
		}, step: "reach", state: failed, answer: "expired", remedy: []string{"out of date", "clock"}},
		{name: "no TLS there", broken: func(s *setting) { s.endpoint = strings.Replace(s.endpoint, "http:", "https:", 1) }, step: "reach", state: failed, answer: "HTTP response to HTTPS", remedy: []string{"check endpoint"}},
		{name: "proxy is dead", broken: func(s *setting) {
			s.endpoint, s.agentLines = "https://s3.no-such-host.invalid", fmt.Sprintf("proxy = %q\n", "http://"+free(t))
		}, step: "reach", state: failed, remedy: []string{"proxy is not reached"}},
		{name: "proxy asks for a login", broken: func(s *setting) {
			u, _ := url.Parse(serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) })))
			u.User = url.UserPassword("agent", "hunter2-proxy")
			s.endpoint, s.agentLines = "https://s3.no-such-host.invalid", fmt.Sprintf("proxy = %q\n", u)
		}, step: "reach", state: failed, answer: "407", remedy: []string{"proxy, its login"}},
		{name: "a portal", broken: func(s *setting) {
			s.endpoint = serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in</html>")) }))
		}, step: "list", state: failed, remedy: []string{"not S3 that answers"}},
		{name: "clock is 20 minutes behind", ahead: 20 * time.Minute, broken: logs, step: "clock", state: failed, answer: "behind S3's: S3 refuses", remedy: []string{"set the clock", "NTP"}},
		{name: "clock is 20 minutes ahead", ahead: -20 * time.Minute, broken: logs, step: "clock", state: failed, answer: "ahead of S3's: S3 refuses", remedy: []string{"set the clock"}},
		{name: "clock is off a little", ahead: 3 * time.Minute, broken: logs, step: "clock", state: warning, answer: "behind", remedy: []string{"NTP"}},
		{name: "clock, as S3 says it", broken: func(s *setting) {
			s.deny(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", s3test.ListObjectsV2)
		}, step: "list", state: failed, answer: "RequestTimeTooSkewed", remedy: []string{"set this machine's clock"}},

		// Credentials and roles.
		{name: "key is unknown", broken: func(s *setting) {
			s.sts.refuse = always(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
		}, step: "credentials", state: failed, answer: "InvalidClientTokenId", remedy: []string{"deleted", "another AWS partition"}, skipped: "list"},
		{name: "GovCloud bucket with commercial keys, as STS says it", region: "us-gov-west-1", broken: func(s *setting) {
			s.region = "us-gov-west-1"
			s.sts.refuse = always(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
		}, step: "credentials", state: failed, remedy: []string{"another AWS partition"}},
		{name: "GovCloud bucket with commercial keys", region: "us-gov-west-1", broken: func(s *setting) { s.region = "us-gov-west-1" }, step: "bucket", state: failed,
			answer: "credentials are of partition aws, and the bucket's region us-gov-west-1 is in aws-us-gov", remedy: []string{"partitions share nothing", "an account in aws-us-gov"}, skipped: "list"},
		{name: "secret is another's", broken: func(s *setting) {
			s.sts.refuse = always(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. hunter2-secret-key")
		}, step: "credentials", state: failed, remedy: []string{"secret access key is not that of the access key"}},
		{name: "token has expired", broken: func(s *setting) {
			s.sts.refuse = always(403, "ExpiredToken", "The security token included in the request is expired")
		}, step: "credentials", state: failed, answer: "ExpiredToken", remedy: []string{"session token has expired"}},
		{name: "token has expired, and there is no STS", broken: func(s *setting) {
			s.stsEndpoint = ""
			s.deny(400, "ExpiredToken", "The provided token has expired.", s3test.HeadBucket, s3test.ListObjectsV2)
		}, step: "list", state: failed, answer: "ExpiredToken", remedy: []string{"session token has expired"}},
		{name: "STS is not reached, and not needed", broken: func(s *setting) { s.stsEndpoint = "http://" + free(t); logs(s) }, step: "credentials", state: warning, answer: "whose they are is not known", remedy: []string{"sts_endpoint"}, ok: "get"},
		{name: "STS is not reached, and needed", broken: func(s *setting) { s.stsEndpoint = "http://" + free(t); s.role(checkRole, "") }, step: "credentials", state: failed, remedy: []string{"sts_endpoint"}, skipped: "list"},
		{name: "wrong external id", broken: func(s *setting) {
			s.role(checkRole, "mine")
			s.sts.refuse = func(action, role, external string) (int, string, string) {
				if action == "AssumeRole" && external != "theirs" {
					return 403, "AccessDenied", denied + "sts:AssumeRole on resource: " + role
				}
				return 0, "", ""
			}
		}, step: "role", state: failed, answer: "sts:AssumeRole", remedy: []string{"external_id must be the one", "trust policy"}, skipped: "list"},
		{name: "no external id", broken: func(s *setting) {
			s.role(checkRole, "")
			s.sts.refuse = func(action, _, _ string) (int, string, string) {
				if action == "AssumeRole" {
					return 403, "AccessDenied", denied + "sts:AssumeRole"
				}
				return 0, "", ""
			}
		}, step: "role", state: failed, remedy: []string{"grant sts:AssumeRole on " + checkRole, "external_id is none"}},
		{name: "second role of a chain", broken: func(s *setting) {
			s.role(checkRole, "")
			s.role(checkChain, "")
			s.sts.refuse = func(_, role, _ string) (int, string, string) {
				if role == checkChain {
					return 403, "AccessDenied", "no"
				}
				return 0, "", ""
			}
		}, step: "role", state: failed, remedy: []string{checkChain}},
		{name: "role for too long", broken: func(s *setting) {
			s.role(checkRole, "")
			s.sts.refuse = func(action, _, _ string) (int, string, string) {
				if action == "AssumeRole" {
					return 400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
				}
				return 0, "", ""
			}
		}, step: "role", state: failed, remedy: []string{"set duration"}},
		{name: "process fails", broken: func(s *setting) {
			s.credentials = "type = \"process\"\ncommand = \"trailpoll-no-such-program\"\n"
		}, step: "credentials", state: failed, remedy: []string{"by hand"}},

		// The bucket and its policies.
		{name: "no such bucket", broken: func(s *setting) { s.bucket = "acme-cloudtrail-typo" }, step: "bucket", state: failed, remedy: []string{"check bucket"}, skipped: "list"},
		{name: "wrong region", broken: func(s *setting) { s.region = "eu-west-1" }, step: "bucket", state: failed, answer: "it is in us-east-1, and region says eu-west-1", remedy: []string{`set region = "us-east-1"`}, skipped: "list"},
		{name: "wrong region (301)", region: "eu-west-1", broken: func(s *setting) {
			s.region = "eu-west-1"
			s.s3.Inject(func(string, string, string, int) s3test.Fault {
				return s3test.Fault{Kind: s3test.Answer, Status: 301, Code: "PermanentRedirect", Message: "The bucket you are attempting to access must be addressed using the specified endpoint.", Header: map[string]string{"X-Amz-Bucket-Region": "ap-south-1"}}
			})
		}, step: "bucket", state: failed, answer: "HTTP 301", remedy: []string{`set region = "ap-south-1"`}},
		{name: "policy lacks List", broken: func(s *setting) {
			s.deny(403, "AccessDenied", denied+"s3:ListBucket on resource: \"arn:aws:s3:::acme-cloudtrail-logs\" because no identity-based policy allows the s3:ListBucket action", s3test.HeadBucket, s3test.ListObjectsV2)
		}, step: "list", state: failed, answer: "no identity-based policy", remedy: []string{"policy of " + checkUser, `"Sid": "ListLogs"`, `"arn:aws:s3:::acme-cloudtrail-logs"`}, skipped: "get"},
		{name: "bucket policy lacks the user", broken: func(s *setting) {
			s.deny(403, "AccessDenied", denied+"s3:ListBucket because no resource-based policy allows the s3:ListBucket action", s3test.HeadBucket, s3test.ListObjectsV2)
		}, step: "list", state: failed, remedy: []string{"policy of the bucket", `"Sid": "TrailpollList"`, `"AWS": "` + checkUser}},
		{name: "bucket policy lacks the role", broken: func(s *setting) {
			s.role(checkRole, "x")
			logs(s)
			s.deny(403, "AccessDenied", denied+"s3:GetObject because no resource-based policy allows the s3:GetObject action", s3test.GetObject)
		}, step: "get", state: failed, remedy: []string{`"Sid": "TrailpollGet"`, `"AWS": "` + checkRole, "Bucket owner enforced"}},
		{name: "policy of the organisation", broken: func(s *setting) {
			s.deny(403, "AccessDenied", denied+"s3:ListBucket with an explicit deny in a service control policy", s3test.ListObjectsV2)
		}, step: "list", state: failed, remedy: []string{"service control policy"}},
		{name: "policy of the VPC endpoint", broken: func(s *setting) {
			s.deny(403, "AccessDenied", denied+"s3:ListBucket because no VPC endpoint policy allows the s3:ListBucket action", s3test.ListObjectsV2)
		}, step: "list", state: failed, remedy: []string{"policy of the VPC endpoint"}},
		{name: "bucket policy denies networks", broken: func(s *setting) {
			logs(s)
			s.deny(403, "AccessDenied", denied+"s3:GetObject with an explicit deny in a resource-based policy", s3test.GetObject)
		}, step: "get", state: failed, remedy: []string{"Deny statement", "networks"}},
		{name: "bucket is another account's than bucket_owner", broken: func(s *setting) {
			s.sourceLines = "bucket_owner = \"999988887777\"\n"
			s.deny(403, "AccessDenied", "Access Denied", s3test.HeadBucket, s3test.ListObjectsV2)
		}, step: "list", state: failed, remedy: []string{"not of account 999988887777 (bucket_owner)"}},
		{name: "requester pays", broken: func(s *setting) {
			s.deny(403, "AccessDenied", "Access Denied", s3test.HeadBucket, s3test.ListObjectsV2)
		}, step: "list", state: failed, remedy: []string{"requester_pays = true"}},
		{name: "requester pays, and it is us", broken: func(s *setting) {
			s.sourceLines = "requester_pays = true\n"
			logs(s)
			s.s3.Inject(func(string, string, string, int) s3test.Fault {
				return s3test.Fault{Header: map[string]string{"X-Amz-Request-Charged": "requester"}}
			})
		}, step: "requester-pays", state: warning, answer: "paid for by the account of the credentials"},
		{name: "one account can't be listed", broken: func(s *setting) {
			logs(s)
			s.put("", "222233334444", "us-east-1", time.Minute, s3test.Object{})
			s.s3.Inject(func(op, _, prefix string, _ int) s3test.Fault {
				if op == s3test.ListObjectsV2 && strings.HasPrefix(prefix, "AWSLogs/222233334444") {
					return s3test.Fault{Kind: s3test.Answer, Status: 403, Code: "AccessDenied", Message: "Access Denied"}
				}
				return s3test.Fault{}
			})
		}, step: "tree", state: failed, remedy: []string{`"Sid": "ListLogs"`}, ok: "get"},

		// The logs.
		{name: "prefix typo", broken: func(s *setting) { s.prefix = "trial"; s.put("trail/", account, "us-east-1", 0, s3test.Object{}) }, step: "tree", state: failed, answer: "below another prefix", remedy: []string{`prefix = "trail"`}, skipped: "get"},
		{name: "prefix is not configured", broken: func(s *setting) { s.put("logs/org/", account, "us-east-1", 0, s3test.Object{}) }, step: "tree", state: failed, remedy: []string{`prefix = "logs/org"`}},
		{name: "prefix too much", broken: func(s *setting) { s.prefix = "trail"; logs(s) }, step: "tree", state: failed, remedy: []string{`prefix = ""`}},
		{name: "another bucket", broken: func(s *setting) { s.s3.Put(s.bucket, "backup/2026/db.tar", []byte("x")) }, step: "tree", state: failed, answer: "backup/", remedy: []string{"name the trail's bucket"}},
		{name: "no logs yet", broken: func(*setting) {}, step: "tree", state: warning, answer: "the bucket is empty", remedy: []string{"15 minutes"}, skipped: "get"},
		{name: "only digests", broken: func(s *setting) {
			s.s3.Put(s.bucket, "AWSLogs/"+account+"/CloudTrail-Digest/us-east-1/2026/11/03/x.json.gz", []byte("x"))
		}, step: "tree", state: failed, answer: "only digest files", remedy: []string{"CloudTrail console"}},
		{name: "only digests, of an organisation", broken: func(s *setting) {
			s.s3.Put(s.bucket, "AWSLogs/o-abcdefghij/"+account+"/CloudTrail-Digest/us-east-1/2026/11/03/x.json.gz", []byte("x"))
		}, step: "tree", state: failed, answer: "only digest files"},
		{name: "another service's logs", broken: func(s *setting) {
			s.s3.Put(s.bucket, "AWSLogs/"+account+"/elasticloadbalancing/us-east-1/x.gz", []byte("x"))
		}, step: "tree", state: failed, answer: "elasticloadbalancing", remedy: []string{"bucket and prefix of the trail"}},
		{name: "files were moved", broken: func(s *setting) { s.s3.Put(s.bucket, "AWSLogs/x.json.gz", []byte("x")) }, step: "tree", state: failed, answer: "no folders", remedy: []string{"files were moved"}},
		{name: "account is excluded", broken: func(s *setting) { s.sourceLines = "accounts = [\"999988887777\"]\n"; logs(s) }, step: "tree", state: failed, answer: "none that the source takes", remedy: []string{"compare accounts", "AWSLogs/" + account}},
		{name: "trail has stopped", broken: func(s *setting) { s.put("", account, "us-east-1", 7*time.Hour, s3test.Object{}) }, step: "newest", state: warning, answer: "ago", remedy: []string{"whether the trail is logging"}},
		{name: "trail stopped long ago", broken: func(s *setting) { s.put("", account, "us-east-1", 200*time.Hour, s3test.Object{}) }, step: "newest", state: warning, answer: "no log file came in the last two days", remedy: []string{"whether the trail is logging"}, ok: "get"},
		{name: "a region fell silent", broken: func(s *setting) { logs(s); s.put("", account, "eu-west-1", 30*time.Hour, s3test.Object{}) }, step: "silent", state: warning, answer: "eu-west-1", remedy: []string{"multi-region"}},
		{name: "policy lacks Get", broken: func(s *setting) {
			logs(s)
			s.deny(403, "AccessDenied", denied+"s3:GetObject because no identity-based policy allows the s3:GetObject action", s3test.GetObject)
		}, step: "get", state: failed, remedy: []string{"policy of " + checkUser, `"Sid": "GetLogs"`, "arn:aws:s3:::acme-cloudtrail-logs/AWSLogs/*"}},
		{name: "key policy lacks the role", broken: func(s *setting) {
			logs(s)
			s.role(checkRole, "")
			s.deny(403, "AccessDenied", "User: arn:aws:sts::222233334444:assumed-role/trailpoll-read/trailpoll is not authorized to perform: kms:Decrypt on resource: "+checkKey+" because no resource-based policy allows the kms:Decrypt action", s3test.GetObject)
		}, step: "decrypt", state: failed, remedy: []string{"kms:Decrypt is not", "policy of the key must allow", `"Sid": "TrailpollDecrypt"`, `"AWS": "` + checkRole}},
		{name: "policy lacks Decrypt", broken: func(s *setting) {
			logs(s)
			s.deny(403, "AccessDenied", denied+"kms:Decrypt on resource: "+checkKey+" because no identity-based policy allows the kms:Decrypt action", s3test.GetObject)
		}, step: "decrypt", state: failed, remedy: []string{"policy of " + checkUser, `"Sid": "DecryptLogs"`, checkKey}},
		{name: "key is disabled", broken: func(s *setting) {
			logs(s)
			s.deny(400, "KMS.DisabledException", checkKey+" is disabled.", s3test.GetObject)
		}, step: "decrypt", state: failed, answer: "is disabled", remedy: []string{checkKey, "enable it"}},
		{name: "newest is archived", broken: func(s *setting) {
			s.put("", account, "us-east-1", 6*time.Minute, s3test.Object{StorageClass: "GLACIER"})
		}, step: "archive", state: failed, answer: "InvalidObjectState", remedy: []string{"restore it", "lifecycle rule"}},
		{name: "older ones are archived", broken: func(s *setting) {
			logs(s)
			s.put("", account, "us-east-1", 20*24*time.Hour, s3test.Object{StorageClass: "DEEP_ARCHIVE"})
		}, step: "archive", state: warning, answer: "1 of 2 are archived", remedy: []string{"lifecycle rule"}, ok: "get"},
		{name: "newest is corrupt", broken: func(s *setting) {
			s.put("", account, "us-east-1", 6*time.Minute, s3test.Object{Body: []byte("no gzip")})
		}, step: "get", state: warning, answer: "no whole log file", remedy: []string{"parked"}},

		// Outputs.
		{name: "output refuses the token", broken: func(s *setting) { s.out.status = 401 }, step: "reach", state: failed, answer: "401", remedy: []string{"token"}},
		{name: "output is forbidden", broken: func(s *setting) { s.out.status = 403 }, step: "reach", state: failed, answer: "403"},
		{name: "output redirects", broken: func(s *setting) {
			s.out.status, s.out.header = 302, map[string]string{"Location": "https://elsewhere.example.com/"}
		}, step: "reach", state: failed, answer: "302", remedy: []string{"url"}},
		{name: "output is down", broken: func(s *setting) { s.to("http://"+free(t), "") }, step: "reach", state: failed, remedy: []string{"nothing listens at"}},
		{name: "output's name is unknown", broken: func(s *setting) { s.to("https://siem.no-such-host.invalid", "") }, step: "reach", state: failed, remedy: []string{"check the name"}},
		{name: "output's CA is missing", broken: func(s *setting) { s.to(secure(t, time.Now().Add(time.Hour), s.out), "") }, step: "reach", state: failed, remedy: []string{"tls.ca_file"}},
		{name: "output's certificate has expired", broken: func(s *setting) {
			s.to(secure(t, time.Now().Add(-time.Minute), s.out), fmt.Sprintf("[output.tls]\nca_file = %q", filepath.ToSlash(authority.File)))
		}, step: "reach", state: failed, remedy: []string{"has expired"}},
		{name: "output speaks no TLS", broken: func(s *setting) {
			s.output = fmt.Sprintf("[[output]]\nname = \"siem\"\ntype = \"syslog\"\naddresses = [%q]\ntransport = \"tls\"\n", strings.TrimPrefix(s.endpoint, "http://"))
		}, step: "reach", state: failed, remedy: []string{"does not speak TLS"}},
		{name: "syslog is down", broken: func(s *setting) {
			s.output = fmt.Sprintf("[[output]]\nname = \"siem\"\ntype = \"syslog\"\naddresses = [%q]\ntransport = \"tcp\"\n", free(t))
		}, step: "reach", state: failed, remedy: []string{"nothing listens at"}},
		{name: "UDP", broken: func(s *setting) {
			s.output = fmt.Sprintf("[[output]]\nname = \"siem\"\ntype = \"syslog\"\naddresses = [%q]\ntransport = \"udp\"\n", free(t))
		}, step: "acknowledgement", state: warning, answer: "no acknowledgement", remedy: []string{"relp-tls"}},
		{name: "output's folder is missing", broken: func(s *setting) {
			s.output = fmt.Sprintf("[[output]]\nname = \"siem\"\ntype = \"file\"\npath = %q\n", filepath.ToSlash(filepath.Join(s.stateDir, "none", "out.ndjson")))
		}, step: "reach", state: failed, answer: "none"},
		{name: "output refuses records", broken: func(s *setting) { s.out.status = 400; s.args = []string{"--send-test"} }, step: "send", state: failed, answer: "400", remedy: []string{"format"}},
		{name: "no source sends to it", broken: func(s *setting) {
			s.sourceLines = "enabled = false\n"
			s.output = strings.Replace(s.output, "type =", "sources = [\"trail\"]\ntype =", 1) +
				fmt.Sprintf("[[source]]\nname = \"other\"\nbucket = \"acme-other\"\nregion = \"us-east-1\"\nendpoint = %q\npath_style = true\n", s.endpoint) +
				"[[output]]\nname = \"rest\"\ntype = \"stdout\"\n"
			s.args = []string{"--output", "siem"}
		}, step: "sources", state: warning, answer: "no enabled source"},

		// This machine.
		{name: "state can't be made", broken: func(s *setting) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.stateDir = filepath.Join(file, "state")
		}, step: "state-dir", state: failed, remedy: []string{"disk is full, or mounted read-only"}},
		{name: "state is held", broken: func(s *setting) {
			store, _, err := checkpoint.Open(s.stateDir, checkpoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s.t.Cleanup(func() { _ = store.Close() })
		}, step: "checkpoint", state: failed, answer: "holds the checkpoint", remedy: []string{"no agent answers in", "state_dir of its own"}},
		{name: "others may read the secret", broken: func(s *setting) {
			s.mode = 0o644
			s.output = strings.Replace(s.output, "env:CHECK_TOKEN", "hunter2-in-the-file", 1)
		}, step: "config", state: warning, answer: "secret stands in it", remedy: []string{"chmod 0600"}},
	}
	if len(tests) < 30 {
		t.Errorf("%d set-ups", len(tests))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && (tt.step == "config" || tt.step == "state-dir") {
				t.Skip("permissions are others on Windows")
			}
			region := orText(tt.region, "us-east-1")
			s := newSetting(t, func() time.Time { return time.Now().Add(tt.ahead) }, region)
			tt.broken(s)
			code, steps, stderr := s.run()
			if want := map[check.State]int{failed: exitProblem, warning: exitDone}[tt.state]; code != want {
				t.Errorf("exit %d, want %d\n%s", code, want, stderr)
			}
			var found *check.Step
			states := map[string]check.State{}
			for i := range steps {
				st := &steps[i]
				states[st.Name] = st.State
				if st.Name == tt.step && st.State == tt.state && strings.Contains(st.Answer, tt.answer) && found == nil {
					found = st
				}
				if st.Tried == "" || st.State == failed && (st.Answer == "" || st.Remedy == "") {
					t.Errorf("half a step: %+v", *st)
				}
			}
			if tt.skipped != "" && states[tt.skipped] != check.Skipped || tt.ok != "" && states[tt.ok] != check.OK {
				t.Errorf("states %v, want %q skipped and %q ok", states, tt.skipped, tt.ok)
			}
			if found == nil {
				t.Fatalf("no step %s %s with %q\n%s%s", tt.step, tt.state, tt.answer, show(steps), stderr)
			}
			for _, want := range tt.remedy {
				if !strings.Contains(found.Remedy, want) {
					t.Errorf("the remedy lacks %q:\n%s", want, found.Remedy)
				}
			}
		})
	}
}

// Nothing is wrong: every step is there, in its order, and nothing is sent or
// left behind.
func TestCheckAllIsWell(t *testing.T) {
	t.Setenv("CHECK_SECRET", "hunter2-secret-key")
	t.Setenv("CHECK_SESSION", "hunter2-session-token")
	t.Setenv("CHECK_TOKEN", "hunter2-token")
	s := newSetting(t, time.Now, "us-east-1")
	s.role(checkRole, "theirs")
	s.put("", "111122223333", "us-east-1", 6*time.Minute, s3test.Object{})
	s.s3.Inject(func(op, _, _ string, _ int) s3test.Fault {
		if op != s3test.GetObject {
			return s3test.Fault{}
		}
		return s3test.Fault{Header: map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": checkKey}}
	})
	code, steps, stderr := s.run()
	var names []string
	for _, st := range steps {
		names = append(names, st.Name)
		if st.State != check.OK && st.Name != "send" {
			t.Errorf("%+v", st)
		}
	}
	want := "config agent state-dir checkpoint reach reach clock credentials role bucket list tree newest decrypt get archive cost reach send"
	if got := strings.Join(names, " "); got != want || code != exitDone || stderr != "" {
		t.Errorf("exit %d, %s\n%s, want\n%s", code, stderr, got, want)
	}
	if s.out.posts != 0 {
		t.Error("a record was sent that nobody asked for")
	}
	if left, err := os.ReadDir(s.stateDir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	s.args = []string{"--send-test", "--output", "siem"}
	if code, steps, _ := s.run(); code != exitDone || s.out.posts != 1 || steps[len(steps)-1].State != check.OK {
		t.Errorf("exit %d, %d posts\n%s", code, s.out.posts, show(steps))
	}
}

// One that is broken holds nobody else back.
func TestCheckGoesOn(t *testing.T) {
	t.Setenv("CHECK_SECRET", "hunter2-secret-key")
	t.Setenv("CHECK_SESSION", "hunter2-session-token")
	t.Setenv("CHECK_TOKEN", "hunter2-token")
	s := newSetting(t, time.Now, "us-east-1")
	s.put("", "111122223333", "us-east-1", 6*time.Minute, s3test.Object{})
	s.out.status = 401
	s.output += fmt.Sprintf(`[[source]]
name = "dead"
bucket = "acme-other"
region = "us-east-1"
endpoint = %q
path_style = true
[source.credentials]
type = "static"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "env:CHECK_SECRET"
[[output]]
name = "here"
type = "stdout"
`, "http://"+mute(t))
	s.args = []string{"--send-test"}
	code, steps, stderr := s.run()
	state := map[string]check.State{}
	for _, st := range steps {
		state[st.Source+st.Output+" "+st.Name] = st.State
	}
	for name, want := range map[string]check.State{"trail get": check.OK, "dead reach": check.Failed, "dead get": check.Skipped, "siem reach": check.Failed, "siem send": check.Skipped, "here send": check.OK} {
		if state[name] != want {
			t.Errorf("%s is %q, want %q", name, state[name], want)
		}
	}
	// The test record is not in the midst of the JSON.
	if code != exitProblem || !strings.Contains(stderr, "TrailpollCheck") {
		t.Errorf("exit %d\n%s\n%s", code, stderr, show(steps))
	}
}

// A first configuration is tried as check does, if that is asked for.
func TestInitChecks(t *testing.T) {
	t.Setenv("CHECK_SECRET", "hunter2-secret-key")
	t.Setenv("CHECK_SESSION", "hunter2-session-token")
	t.Setenv("CHECK_TOKEN", "hunter2-token")
	s := newSetting(t, time.Now, "us-east-1")
	s.out.status = http.StatusUnauthorized
	path := filepath.Join(t.TempDir(), "trailpoll.toml")
	if err := os.WriteFile(path, []byte(s.text()), 0o600); err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[bool]string{true: "✗ reach", false: "try it with: trailpoll check"} {
		c, _, err := newRoot().Find([]string{"config", "init"})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c.SetContext(t.Context())
		c.SetOut(&out)
		if err := c.ParseFlags([]string{"--config", path}); err != nil {
			t.Fatal(err)
		}
		err = tryFirst(c, &answers{check: asked})
		e, _ := errors.AsType[*exitError](err)
		if asked != (e != nil && e.code == exitProblem) || !strings.Contains(out.String(), want) {
			t.Errorf("check %t: %v\n%s", asked, err, out.String())
		}
	}
}

// docs/check.md lists the steps that there are, and what it quotes is what the
// set-ups above are told.
func TestCheckDocumentation(t *testing.T) {
	doc, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "## The steps\n")
	list, quotes, _ := strings.Cut(rest, "## Troubleshooting\n")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` ").FindAllStringSubmatch(list, -1) {
		documented[m[1]] = true
	}
	code, err := filepath.Glob("../../agent/check/*.go")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{"role": true}
	for _, name := range code {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`x\.(?:ok|fail|warn|skip)\("([a-z-]+)"`).FindAllStringSubmatch(string(text), -1) {
			there[m[1]] = true
		}
	}
	if !maps.Equal(documented, there) || len(there) < 20 {
		t.Errorf("documented %v\nthere are  %v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(there)))
	}
	wants, err := os.ReadFile("check_test.go")
	if err != nil {
		t.Fatal(err)
	}
	told := strings.ReplaceAll(string(wants), "`", "\"")
	n := 0
	for row := range strings.SplitSeq(quotes, "\n") {
		if cells := strings.Split(row, "|"); len(cells) == 4 && strings.Contains(cells[1], "`") {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				n++
				if !strings.Contains(told, m[1]) {
					t.Errorf("no set-up is told %q", m[1])
				}
			}
		}
	}
	if n < 25 {
		t.Errorf("%d quotes", n)
	}
}
