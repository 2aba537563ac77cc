package s3source

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
)

const (
	userARN   = "arn:aws:iam::111122223333:user/agent"
	readARN   = "arn:aws:iam::222233334444:role/trailpoll-read"
	middleARN = "arn:aws:iam::333344445555:role/middle"
	external  = "the-external-id"
)

// noHome leaves a home directory and an environment with credentials that
// nobody should use unasked.
func noHome(t *testing.T) {
	t.Helper()
	bare(t)
	home := t.TempDir()
	for _, name := range []string{"HOME", "USERPROFILE"} {
		t.Setenv(name, home)
	}
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	const text = "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = hunter2home\n"
	write(t, filepath.Join(home, ".aws", "credentials"), text)
	write(t, filepath.Join(home, ".aws", "config"), text+"region = ap-south-1\n")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "")
	t.Setenv("AWS_CONFIG_FILE", "")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2env")
}

func printing(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "creds.json")
	write(t, file, string(data))
	if runtime.GOOS == "windows" {
		return "type " + file
	}
	return "cat " + file
}

// Each way in, against a counterpart that verifies what it is shown; and where
// it is closed, the error that says so, and shows nothing secret: all secrets
// here have hunter2 in them. Nothing falls through to the keys that
// lie about in the environment and the home directory.
func TestInvariant10_EachWayIn(t *testing.T) {
	type world struct {
		*cloud
		s3, sts, imds string
		t             *testing.T
	}
	roles := func(r ...Role) []Role { return r }
	for _, tt := range []struct {
		name string
		set  func(w *world) Credentials
		who  string // "" = it fails
		text string // in the error
		hint string
		kind fault.Kind // BadCredentials unless it is said
	}{
		{name: "static", who: userARN, set: func(w *world) Credentials {
			k, _ := w.issue(userARN, 0)
			return Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey}
		}},
		{name: "static with a session token", who: userARN, set: func(w *world) Credentials {
			k, _ := w.issue(userARN, time.Hour)
			return Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken}
		}},
		{name: "static expired", text: "ExpiredToken", hint: "the session token has expired", set: func(w *world) Credentials {
			k, _ := w.issue(userARN, time.Nanosecond)
			return Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken}
		}},
		{name: "static wrong secret", text: "SignatureDoesNotMatch", hint: "not that of the access key", set: func(w *world) Credentials {
			k, _ := w.issue(userARN, 0)
			return Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey + "x"}
		}},
		{name: "profile", who: userARN, set: func(w *world) Credentials {
			k, _ := w.issue(userARN, 0)
			file := filepath.Join(w.t.TempDir(), "aws")
			write(w.t, file, "[audit]\naws_access_key_id = "+k.AccessKeyID+"\naws_secret_access_key = "+k.SecretAccessKey+"\n")
			return Credentials{Type: Profile, Profile: "audit", SharedFiles: []string{file}}
		}},
		{name: "profile that assumes a role", who: sessionOf(readARN, "by-profile"), set: func(w *world) Credentials {
			k, _ := w.issue(userARN, 0)
			w.roles[readARN] = trustPolicy{principal: userARN, externalID: external}
			file := filepath.Join(w.t.TempDir(), "aws")
			write(w.t, file, "[base]\naws_access_key_id = "+k.AccessKeyID+"\naws_secret_access_key = "+k.SecretAccessKey+
				"\n[profile audit]\nrole_arn = "+readARN+"\nsource_profile = base\nexternal_id = "+external+"\nrole_session_name = by-profile\n"+
				"\n[audit]\nrole_arn = "+readARN+"\nsource_profile = base\nexternal_id = "+external+"\nrole_session_name = by-profile\n")
			return Credentials{Type: Profile, Profile: "audit", SharedFiles: []string{file}, STSEndpoint: w.sts}
		}},
		{name: "auto, environment", who: userARN, set: func(w *world) Credentials {
			k, _ := w.issue(userARN, 0)
			w.t.Setenv("AWS_ACCESS_KEY_ID", k.AccessKeyID)
			w.t.Setenv("AWS_SECRET_ACCESS_KEY", k.SecretAccessKey)
			return Credentials{Type: AutoCredentials}
		}},
		{name: "auto, instance", who: sessionOf(middleARN, "i-1"), set: func(w *world) Credentials {
			w.offer(sessionOf(middleARN, "i-1"), 6*time.Hour)
			w.role = "middle"
			for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"} {
				w.t.Setenv(name, "")
			}
			none := filepath.Join(w.t.TempDir(), "none")
			w.t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
			w.t.Setenv("AWS_CONFIG_FILE", none)
			w.t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", w.imds)
			return Credentials{Type: AutoCredentials}
		}},
		{name: "ec2-role", who: sessionOf(middleARN, "i-1"), set: func(w *world) Credentials {
			w.offer(sessionOf(middleARN, "i-1"), 6*time.Hour)
			w.role = "middle"
			return Credentials{Type: EC2Role, IMDSEndpoint: w.imds}
		}},
		{name: "ec2-role without a role", text: "metadata answer HTTP 404", hint: "attach an IAM role", set: func(w *world) Credentials {
			return Credentials{Type: EC2Role, IMDSEndpoint: w.imds}
		}},
		{name: "ec2-role behind a proxy", text: "HTTP 403", hint: "metadata options", set: func(w *world) Credentials {
			return Credentials{Type: EC2Role, IMDSEndpoint: listenHandler(w.t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				r.Header.Set("X-Forwarded-For", "192.0.2.1")
				w.serveIMDS(rw, r)
			}))}
		}},
		{name: "ec2-role of version 1 alone", text: "getting credentials: ", hint: "IMDSv2", set: func(w *world) Credentials {
			return Credentials{Type: EC2Role, IMDSEndpoint: listenHandler(w.t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					rw.WriteHeader(404)
					return
				}
				w.t.Errorf("asked without a token: %s", r.URL.Path)
			}))}
		}},
		{name: "ec2-role, no instance", text: "getting credentials: ", hint: "is this an EC2 instance", set: func(w *world) Credentials {
			return Credentials{Type: EC2Role, IMDSEndpoint: "http://127.0.0.1:1"}
		}},
		{name: "container", who: sessionOf(middleARN, "task"), set: func(w *world) Credentials {
			w.offer(sessionOf(middleARN, "task"), 6*time.Hour)
			file := filepath.Join(w.t.TempDir(), "token")
			write(w.t, file, "pod-token-hunter2\n")
			w.t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", listenHandler(w.t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "pod-token-hunter2" || r.URL.Path != "/v1/credentials" {
					rw.WriteHeader(403)
					return
				}
				_ = json.NewEncoder(rw).Encode(w.given)
			}))+"/v1/credentials")
			w.t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file)
			return Credentials{Type: Container}
		}},
		{name: "container that gives nothing", text: "holds no access key", hint: "ECS task", set: func(w *world) Credentials {
			w.t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", listenHandler(w.t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = rw.Write([]byte("{}"))
			})))
			return Credentials{Type: Container}
		}},
		{name: "container elsewhere", text: "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", hint: "ECS task or an EKS pod", set: func(*world) Credentials {
			return Credentials{Type: Container}
		}},
		{name: "container that would tell others", text: "by http to another machine", hint: "ECS task", set: func(w *world) Credentials {
			w.t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/creds")
			return Credentials{Type: Container}
		}},
		{name: "web identity", who: sessionOf(readARN, "trailpoll"), set: func(w *world) Credentials {
			file := filepath.Join(w.t.TempDir(), "token")
			write(w.t, file, "jwt-hunter2\n")
			w.web, w.roles[readARN] = "jwt-hunter2", trustPolicy{}
			return Credentials{Type: WebIdentity, TokenFile: file, STSEndpoint: w.sts, Roles: roles(Role{ARN: readARN})}
		}},
		{name: "web identity as EKS has it, and a role", who: sessionOf(readARN, "trailpoll"), set: func(w *world) Credentials {
			file := filepath.Join(w.t.TempDir(), "token")
			write(w.t, file, "jwt-hunter2")
			w.t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
			w.t.Setenv("AWS_ROLE_ARN", middleARN)
			w.web, w.roles[middleARN], w.roles[readARN] = "jwt-hunter2", trustPolicy{}, trustPolicy{principal: sessionOf(middleARN, "")}
			return Credentials{Type: WebIdentity, STSEndpoint: w.sts, Roles: roles(Role{ARN: readARN})}
		}},
		{name: "web identity, foreign token", text: "assuming " + readARN + ": InvalidIdentityToken", hint: "identity provider in IAM", set: func(w *world) Credentials {
			file := filepath.Join(w.t.TempDir(), "token")
			write(w.t, file, "jwt-hunter2")
			w.web, w.roles[readARN] = "another", trustPolicy{}
			return Credentials{Type: WebIdentity, TokenFile: file, STSEndpoint: w.sts, Roles: roles(Role{ARN: readARN})}
		}},
		{name: "web identity, old token", text: "ExpiredTokenException", hint: "the token has expired", set: func(w *world) Credentials {
			file := filepath.Join(w.t.TempDir(), "token")
			write(w.t, file, "expired")
			return Credentials{Type: WebIdentity, TokenFile: file, STSEndpoint: w.sts, Roles: roles(Role{ARN: readARN})}
		}},
		{name: "web identity, not trusted", text: "Not authorized to perform sts:AssumeRoleWithWebIdentity", hint: "sub and aud", set: func(w *world) Credentials {
			file := filepath.Join(w.t.TempDir(), "token")
			write(w.t, file, "jwt-hunter2")
			w.web = "jwt-hunter2"
			return Credentials{Type: WebIdentity, TokenFile: file, STSEndpoint: w.sts, Roles: roles(Role{ARN: readARN})}
		}},
		{name: "web identity, no token", text: "reading the token", hint: "token_file", set: func(w *world) Credentials {
			return Credentials{Type: WebIdentity, TokenFile: "/nowhere/token", STSEndpoint: w.sts, Roles: roles(Role{ARN: readARN})}
		}},
		{name: "process", who: userARN, set: func(w *world) Credentials {
			k, ends := w.issue(userARN, time.Hour)
			return Credentials{Type: Process, Command: printing(w.t, map[string]any{
				"Version": 1, "AccessKeyId": k.AccessKeyID, "SecretAccessKey": k.SecretAccessKey, "SessionToken": k.SessionToken, "Expiration": ends,
			})}
		}},
		{name: "process that gives what has ended", text: "have expired already", hint: "clock", set: func(w *world) Credentials {
			return Credentials{Type: Process, Command: printing(w.t, map[string]any{
				"Version": 1, "AccessKeyId": "AK", "SecretAccessKey": "hunter2hunter2", "SessionToken": "hunter2", "Expiration": time.Now().Add(-time.Hour),
			})}
		}},
		{name: "process that fails", text: "exit status 3", hint: "by hand", set: func(*world) Credentials {
			return Credentials{Type: Process, Command: "echo hunter2 >&2; echo hunter2; exit 3"}
		}},
		{name: "process that prints something else", text: "not what it should be", hint: "by hand", set: func(*world) Credentials {
			return Credentials{Type: Process, Command: "echo hunter2 is my password"}
		}},
		{name: "process that prints without end", text: "more than 64 KiB", hint: "by hand", set: func(*world) Credentials {
			return Credentials{Type: Process, Command: "yes hunter2"}
		}},
		{name: "process that is not", text: "exit status 127", hint: "by hand", set: func(*world) Credentials {
			return Credentials{Type: Process, Command: "/nowhere/helper"}
		}},
		{name: "process that hangs", text: "timed out", hint: "by hand", set: func(*world) Credentials {
			return Credentials{Type: Process, Command: "sleep 600 & sleep 600", CommandTimeout: 100 * time.Millisecond}
		}},
		{name: "role", who: sessionOf(readARN, "trailpoll"), set: func(w *world) Credentials {
			w.roles[readARN] = trustPolicy{principal: userARN, externalID: external}
			return w.user(Role{ARN: readARN, ExternalID: external}, w.sts)
		}},
		{name: "role with a name and a length", who: sessionOf(readARN, "audit-1"), set: func(w *world) Credentials {
			w.roles[readARN] = trustPolicy{principal: userARN, longest: 12 * time.Hour}
			return w.user(Role{ARN: readARN, SessionName: "audit-1", Duration: 12 * time.Hour}, w.sts)
		}},
		{name: "wrong external id", text: "assuming " + readARN + ": AccessDenied: User: " + userARN + " is not authorized to perform: sts:AssumeRole",
			hint: "external_id must be the one", set: func(w *world) Credentials {
				w.roles[readARN] = trustPolicy{principal: userARN, externalID: external}
				return w.user(Role{ARN: readARN, ExternalID: "another"}, w.sts)
			}},
		{name: "no external id", text: "AccessDenied", hint: "set it if the trust policy asks for one", set: func(w *world) Credentials {
			w.roles[readARN] = trustPolicy{principal: userARN, externalID: external}
			return w.user(Role{ARN: readARN}, w.sts)
		}},
		{name: "role that trusts another", text: "AccessDenied", hint: "grant sts:AssumeRole on " + readARN, set: func(w *world) Credentials {
			w.roles[readARN] = trustPolicy{principal: "arn:aws:iam::999999999999:user/x"}
			return w.user(Role{ARN: readARN}, w.sts)
		}},
		{name: "role for too long", text: "MaxSessionDuration", hint: "set duration", set: func(w *world) Credentials {
			w.roles[readARN] = trustPolicy{principal: userARN, longest: time.Hour}
			return w.user(Role{ARN: readARN, Duration: 2 * time.Hour}, w.sts)
		}},
		{name: "role with a key that is gone", text: "InvalidClientTokenId", hint: "does not know the access key", set: func(w *world) Credentials {
			c := w.user(Role{ARN: readARN}, w.sts)
			w.revoke(c.AccessKeyID)
			return c
		}},
		{name: "role with a wrong secret, and an answer that tells the token", text: "[redacted]", hint: "not that of the access key", set: func(w *world) Credentials {
			k, _ := w.issue(userARN, time.Hour)
			return Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey + "x", SessionToken: k.SessionToken,
				Roles: roles(Role{ARN: readARN})}
		}},
		{name: "STS is down", kind: fault.Temporary, text: "assuming " + readARN + ": ServiceUnavailable", set: func(w *world) Credentials {
			w.stsDown = true
			return w.user(Role{ARN: readARN}, w.sts)
		}},
		{name: "STS is not reached", kind: fault.Unreachable, text: "assuming " + readARN + ": ", hint: "route to STS", set: func(w *world) Credentials {
			return w.user(Role{ARN: readARN}, "http://127.0.0.1:1")
		}},
		{name: "chain", who: sessionOf(readARN, "trailpoll"), set: func(w *world) Credentials {
			w.roles[middleARN] = trustPolicy{principal: userARN}
			w.roles[readARN] = trustPolicy{principal: sessionOf(middleARN, ""), externalID: external}
			c := w.user(Role{ARN: middleARN}, w.sts)
			c.Roles = append(c.Roles, Role{ARN: readARN, ExternalID: external})
			return c
		}},
		{name: "chain that breaks at its end", text: "assuming " + readARN + ": AccessDenied: User: " + sessionOf(middleARN, "trailpoll"), hint: "trust policy", set: func(w *world) Credentials {
			w.roles[middleARN] = trustPolicy{principal: userARN}
			c := w.user(Role{ARN: middleARN}, w.sts)
			c.Roles = append(c.Roles, Role{ARN: readARN})
			return c
		}},
		{name: "ec2-role and a role", who: sessionOf(readARN, "trailpoll"), set: func(w *world) Credentials {
			w.offer(sessionOf(middleARN, "i-1"), 6*time.Hour)
			w.role, w.roles[readARN] = "middle", trustPolicy{principal: sessionOf(middleARN, "i-1")}
			return Credentials{Type: EC2Role, IMDSEndpoint: w.imds, STSEndpoint: w.sts, Roles: roles(Role{ARN: readARN})}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.HasPrefix(tt.name, "process that") {
				t.Skip("the commands are those of a Unix shell")
			}
			noHome(t)
			w := &world{cloud: newCloud(t), t: t}
			w.s3, w.sts, w.imds = w.listen()
			c := tt.set(w)
			if c.STSEndpoint == "" {
				c.STSEndpoint = w.sts
			}
			s := at(t, w.s3, using(c), func(c *Config) { c.BucketOwner = "222233334444" })
			_, err := s.List(t.Context(), listing.Request{Prefix: "AWSLogs/"})
			if tt.who != "" {
				who, idErr := s.Identity(t.Context())
				if err != nil || idErr != nil || who.ARN != tt.who || who.Account != strings.Split(tt.who, ":")[4] {
					t.Fatalf("%+v, %v, %v; want %s", who, err, idErr, tt.who)
				}
				steps := s.Steps(t.Context())
				if last := steps[len(steps)-1]; last.Err != nil || last.Identity.ARN != tt.who || w.refused != 0 {
					t.Errorf("%+v; S3 refused %d", steps, w.refused)
				}
				return
			}
			kind := tt.kind
			if tt.hint != "" && kind == fault.Temporary {
				kind = fault.BadCredentials
			}
			if fault.KindOf(err) != kind || !strings.Contains(err.Error(), tt.text) || !strings.Contains(fault.HintOf(err), tt.hint) {
				t.Errorf("%v: %v, hint %q; want %v with %q and %q", fault.KindOf(err), err, fault.HintOf(err), kind, tt.text, tt.hint)
			}
			steps := s.Steps(t.Context())
			stepErr := steps[len(steps)-1].Err
			if !strings.HasPrefix(tt.name, "static") && stepErr == nil {
				t.Errorf("no step failed: %+v", steps)
			}
			for _, said := range []string{err.Error(), fault.HintOf(err), fmt.Sprint(steps), fmt.Sprintf("%+v %#v", s.cfg, steps), fmt.Sprint(stepErr)} {
				if strings.Contains(said, "hunter2") {
					t.Errorf("a secret is shown: %s", said)
				}
			}
			if w.s3served() != 0 && !strings.HasPrefix(tt.name, "static") {
				t.Error("something was signed with other credentials")
			}
		})
	}
}

// s3served counts the requests that came as far as S3.
func (c *cloud) s3served() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused + c.s3.Count("ListObjectsV2")
}

// user is a user's key, and a role on top.
func (c *cloud) user(r Role, sts string) Credentials {
	k, _ := c.issue(userARN, 0)
	return Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, STSEndpoint: sts, Roles: []Role{r}}
}

func sessionOf(role, name string) string {
	part := strings.Split(role, ":")
	return "arn:" + part[1] + ":sts::" + part[4] + ":assumed-" + part[5] + "/" + name
}

// A network that inspects TLS has its certificate in AWS_CA_BUNDLE or in a
// profile: the SDK fails over that if it can't add it.
func TestCABundle(t *testing.T) {
	noHome(t)
	c := newCloud(t)
	s3, sts, _ := c.listen()
	tls := httptest.NewTLSServer(http.HandlerFunc(c.serveSTS))
	defer tls.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})))
	k, _ := c.issue(userARN, 0)
	c.roles[readARN] = trustPolicy{principal: userARN}
	files := filepath.Join(dir, "aws")
	write(t, files, "[base]\naws_access_key_id = "+k.AccessKeyID+"\naws_secret_access_key = "+k.SecretAccessKey+
		"\n[audit]\nrole_arn = "+readARN+"\nsource_profile = base\nca_bundle = "+ca+"\n")
	profile := Credentials{Type: Profile, Profile: "audit", SharedFiles: []string{files}}
	profile.STSEndpoint = tls.URL
	if err := calls(t.Context(), at(t, s3, using(profile)), "list"); err != nil {
		t.Errorf("a profile's: %v", err)
	}
	t.Setenv("AWS_CA_BUNDLE", ca)
	t.Setenv("AWS_ACCESS_KEY_ID", k.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", k.SecretAccessKey)
	if err := calls(t.Context(), at(t, s3, using(Credentials{STSEndpoint: sts})), "list"); err != nil {
		t.Errorf("the environment's: %v", err)
	}
}

// What an explicit type does not read, it does not trip over either.
func TestNothingOfTheHomeDirectory(t *testing.T) {
	noHome(t)
	home := os.Getenv("HOME")
	for _, name := range []string{"config", "credentials"} {
		write(t, filepath.Join(home, ".aws", name), "[default\nthis is no file of AWS\n")
	}
	c := newCloud(t)
	s3, sts, imds := c.listen()
	c.offer(sessionOf(middleARN, "i-1"), time.Hour)
	c.role, c.roles[readARN] = "middle", trustPolicy{principal: sessionOf(middleARN, "i-1")}
	s := at(t, s3, using(Credentials{Type: EC2Role, IMDSEndpoint: imds, STSEndpoint: sts, Roles: []Role{{ARN: readARN}}}))
	if err := calls(t.Context(), s, "list"); err != nil {
		t.Error(err)
	}
	if err := calls(t.Context(), at(t, s3, using(Credentials{Type: AutoCredentials})), "list"); err != nil && fault.KindOf(err) != fault.BadCredentials {
		t.Error(err)
	}
}

// What can never work is said before anything is asked.
func TestCredentialsThatCannotWork(t *testing.T) {
	static := Credentials{Type: Static, AccessKeyID: "a", SecretAccessKey: "b"}
	with := func(c Credentials, r ...Role) Credentials { c.Roles = r; return c }
	for _, tt := range []struct {
		name, want string
		cfg        Config
	}{
		{"no ARN", `"role/x" is not the ARN of a role`, Config{Credentials: with(static, Role{ARN: "role/x"})}},
		{"GovCloud bucket, commercial role", "the role " + readARN + " is of partition aws, and region us-gov-west-1 is of aws-us-gov",
			Config{Region: "us-gov-west-1", Credentials: with(static, Role{ARN: readARN})}},
		{"two partitions", "can be assumed from partition aws-cn", Config{Credentials: with(static, Role{ARN: "arn:aws-cn:iam::111122223333:role/r"}, Role{ARN: readARN})}},
		{"chain for long", "an hour at most", Config{Credentials: with(static, Role{ARN: readARN}, Role{ARN: middleARN, Duration: 2 * time.Hour})}},
		{"instance for long", "an hour at most", Config{Credentials: with(Credentials{Type: EC2Role}, Role{ARN: readARN, Duration: 2 * time.Hour})}},
		{"STS without FIPS", "STS has no FIPS endpoint in ca-central-1", Config{Region: "ca-central-1", FIPS: true, Credentials: with(static, Role{ARN: readARN})}},
		{"S3 without FIPS", "S3 has no FIPS endpoint in eu-west-1", Config{Region: "eu-west-1", FIPS: true, Credentials: static}},
		{"STS that is no URL", "endpoint of STS", Config{Credentials: Credentials{Type: EC2Role, STSEndpoint: "sts.example.com"}}},
		{"token without a role", "has no role to assume", Config{Credentials: Credentials{Type: WebIdentity, TokenFile: "/t"}}},
		{"no command", "lack a command", Config{Credentials: Credentials{Type: Process}}},
		{"no such type", `no credentials of type "sso"`, Config{Credentials: Credentials{Type: "sso"}}},
	} {
		tt.cfg.Bucket = bucket
		_, err := New(tt.cfg)
		if fault.KindOf(err) != fault.Misconfigured || !strings.Contains(err.Error(), tt.want) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q", tt.name, err, fault.HintOf(err))
		}
	}
}

// The keys of another S3 are not shown to AWS.
func TestNoSTSElsewhere(t *testing.T) {
	c := newCloud(t)
	k, _ := c.issue(userARN, 0)
	s := c.source(func(cfg *Config) {
		cfg.Endpoint = "https://s3.example.com"
		cfg.Credentials = Credentials{Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey}
	})
	if _, err := s.Identity(t.Context()); !errors.Is(err, ErrNoSTS) || len(c.sts) != 0 {
		t.Errorf("%v, %d calls", err, len(c.sts))
	}
	steps := s.Steps(t.Context())
	if len(steps) != 1 || !errors.Is(steps[0].Err, ErrNoSTS) || steps[0].Name != "static" {
		t.Errorf("%+v", steps)
	}
}

// A clock that is 20 minutes off is named, whoever notices first.
func TestClockIsOff(t *testing.T) {
	for _, withRole := range []bool{false, true} {
		c := newCloud(t)
		c.roles[readARN] = trustPolicy{principal: userARN}
		creds := c.user(Role{ARN: readARN}, "")
		if !withRole {
			creds.Roles = nil
		}
		s := c.source(using(creds))
		late := roundTrip(func(r *http.Request) (*http.Response, error) {
			at, _ := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
			r.Header.Set("X-Amz-Date", at.Add(-20*time.Minute).Format("20060102T150405Z"))
			return c.RoundTrip(r)
		})
		s.http = &http.Client{Transport: late}
		err := calls(t.Context(), s, "list")
		if fault.KindOf(err) != fault.BadCredentials || !strings.Contains(fault.HintOf(err), "set this machine's clock") {
			t.Errorf("role=%t: %v, hint %q", withRole, err, fault.HintOf(err))
		}
	}
}

// Whether a server is reached at all, and what its clock says.
func TestReach(t *testing.T) {
	c := newCloud(t)
	s3, _, _ := c.listen()
	s := at(t, s3)
	e := s.Endpoints()
	if len(e) != 1 || e[0] != (Endpoint{"S3", s3}) {
		t.Fatalf("%+v", e)
	}
	if when, err := s.Reach(t.Context(), e[0]); err != nil || time.Since(when) > time.Minute || when.IsZero() {
		t.Errorf("%v, %v", when, err)
	}
	for url, want := range map[string]fault.Kind{
		"http://127.0.0.1:1": fault.Unreachable, "https://" + strings.TrimPrefix(s3, "http://"): fault.Unreachable, "://": fault.Misconfigured,
	} {
		_, err := s.Reach(t.Context(), Endpoint{"S3", url})
		if fault.KindOf(err) != want || fault.HintOf(err) == "" || !strings.HasPrefix(err.Error(), "connecting to "+url+": ") {
			t.Errorf("%s: %v: %v, hint %q", url, fault.KindOf(err), err, fault.HintOf(err))
		}
	}
}
