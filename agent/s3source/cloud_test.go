package s3source

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

// cloud is as much of AWS as credentials meet: keys that are known, expire and
// are taken back; an S3, an STS and the metadata of an instance that check
// them. Signatures are verified as AWS does. It is an http.RoundTripper, too,
// for tests whose time is not real.
type cloud struct {
	t      testing.TB
	s3     *s3test.Server
	region string // that S3 and STS are signed for

	mu       sync.Mutex
	keys     map[string]key4
	roles    map[string]trustPolicy
	role     string         // the instance's; "" = none
	given    map[string]any // what the instance's metadata and the container give out
	tokens   map[string]time.Time
	web      string // the token that is good for a web identity
	serial   int
	refused  int // requests that S3 refused for their credentials
	sts      []url.Values
	stsDown  bool
	imdsDown bool
	hits     map[string]int // of the metadata, by method and path
}

// key4 is an access key.
type key4 struct {
	secret, token, arn string
	ends               time.Time // zero: never
}

// trustPolicy is whom a role trusts.
type trustPolicy struct {
	principal  string // the ARN that may assume it begins so
	externalID string
	longest    time.Duration
}

func newCloud(t testing.TB) *cloud {
	srv := s3test.New(s3test.Config{})
	t.Cleanup(func() { _ = srv.Close() })
	srv.Put(bucket, "AWSLogs/k", []byte("x"))
	return &cloud{
		t: t, s3: srv, region: "eu-west-1", keys: map[string]key4{}, roles: map[string]trustPolicy{},
		tokens: map[string]time.Time{}, hits: map[string]int{},
	}
}

// issue makes a key for an identity; ttl 0 = it does not end.
func (c *cloud) issue(arn string, ttl time.Duration) (Keys, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.issueLocked(arn, ttl)
}

func (c *cloud) issueLocked(arn string, ttl time.Duration) (Keys, time.Time) {
	c.serial++
	k := Keys{AccessKeyID: fmt.Sprintf("AKIA%016d", c.serial), SecretAccessKey: fmt.Sprintf("hunter2secret%027d", c.serial)}
	var ends time.Time
	if ttl > 0 {
		k.AccessKeyID = fmt.Sprintf("ASIA%016d", c.serial)
		k.SessionToken = fmt.Sprintf("hunter2token%028d", c.serial)
		ends = time.Now().Add(ttl).Truncate(time.Second)
	}
	c.keys[k.AccessKeyID] = key4{k.SecretAccessKey, k.SessionToken, arn, ends}
	return k, ends
}

func (c *cloud) revoke(accessKey string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, accessKey)
}

// offer makes the instance's metadata and the container give out new keys.
func (c *cloud) offer(arn string, ttl time.Duration) Keys {
	k, ends := c.issue(arn, ttl)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given = map[string]any{
		"Code": "Success", "LastUpdated": time.Now().UTC(), "Type": "AWS-HMAC", "AccessKeyId": k.AccessKeyID,
		"SecretAccessKey": k.SecretAccessKey, "Token": k.SessionToken, "Expiration": ends.UTC().Format(time.RFC3339),
	}
	return k
}

// verify returns the key that signed a request, or the code of what is wrong.
func (c *cloud) verify(r *http.Request, body []byte, service string) (k key4, code, message string) {
	fields := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[3] != service {
		return k, "MissingAuthenticationToken", "Request is missing Authentication Token"
	}
	k, ok := c.keys[scope[0]]
	if !ok {
		if service == "sts" {
			return k, "InvalidClientTokenId", "The security token included in the request is invalid."
		}
		return k, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
	}
	if r.Header.Get("X-Amz-Security-Token") != k.token {
		return k, "InvalidToken", "The provided token is malformed or otherwise invalid."
	}
	if !k.ends.IsZero() && !time.Now().Before(k.ends) {
		return k, "ExpiredToken", "The provided token has expired."
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if off := time.Since(at); err != nil || off > 15*time.Minute || off < -15*time.Minute {
		if service == "sts" {
			return k, "SignatureDoesNotMatch", "Signature expired: " + r.Header.Get("X-Amz-Date") + " is now earlier than the present"
		}
		return k, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."
	}
	if scope[2] != c.region {
		return k, "AuthorizationHeaderMalformed", "the region '" + scope[2] + "' is wrong; expecting '" + c.region + "'"
	}

	again := r.Clone(r.Context())
	again.URL.Scheme, again.URL.Host, again.Header = "https", r.Host, http.Header{}
	for name := range strings.SplitSeq(fields["SignedHeaders"], ";") {
		switch name {
		case "host", "content-length":
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header[http.CanonicalHeaderKey(name)]
		}
	}
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if hash == "" {
		sum := sha256.Sum256(body)
		hash = hex.EncodeToString(sum[:])
	}
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: scope[0], SecretAccessKey: k.secret, SessionToken: k.token},
		again, hash, service, scope[2], at, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	if err != nil || !strings.HasSuffix(again.Header.Get("Authorization"), "Signature="+fields["Signature"]) {
		message = "The request signature we calculated does not match the signature you provided."
		if service == "sts" { // which shows what it made of the request
			message += " The Canonical String for this request should have been 'POST / x-amz-security-token:" + k.token + "'"
		}
		return k, "SignatureDoesNotMatch", message
	}
	return k, "", ""
}

// serveS3 is S3.
func (c *cloud) serveS3(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	_, code, message := c.verify(r, nil, "s3")
	region := c.region
	if code != "" {
		c.refused++
	}
	c.mu.Unlock()
	if code == "" {
		c.s3.ServeHTTP(w, r)
		return
	}
	w.Header().Set("X-Amz-Request-Id", "R")
	w.Header().Set("X-Amz-Bucket-Region", region)
	status := 403
	if code == "ExpiredToken" || code == "AuthorizationHeaderMalformed" || code == "InvalidToken" {
		status = 400
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
	}
}

// serveSTS is STS.
func (c *cloud) serveSTS(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sts = append(c.sts, form)
	fail := func(status int, code, message string) {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>R</RequestId></ErrorResponse>`, code, message)
	}
	if c.stsDown {
		fail(503, "ServiceUnavailable", "come back later")
		return
	}
	answer := func(inner string) {
		action := form.Get("Action")
		w.Header().Set("Content-Type", "text/xml")
		_, _ = fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>R</RequestId></ResponseMetadata></%[1]sResponse>`, action, inner)
	}
	arn := form.Get("RoleArn")
	role, known := c.roles[arn]
	seconds, _ := strconv.Atoi(form.Get("DurationSeconds"))
	ttl := time.Duration(seconds) * time.Second
	session := func() {
		part := strings.Split(arn, ":")
		who := fmt.Sprintf("arn:%s:sts::%s:assumed-%s/%s", part[1], part[4], part[5], form.Get("RoleSessionName"))
		k, ends := c.issueLocked(who, ttl)
		answer(fmt.Sprintf("<AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>%s</Arn></AssumedRoleUser><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>",
			who, k.AccessKeyID, k.SecretAccessKey, k.SessionToken, ends.UTC().Format(time.RFC3339)))
	}
	if form.Get("Action") == "AssumeRoleWithWebIdentity" {
		switch {
		case r.Header.Get("Authorization") != "":
			fail(400, "ValidationError", "this call is not signed")
		case form.Get("WebIdentityToken") == "expired":
			fail(400, "ExpiredTokenException", "Token expired")
		case form.Get("WebIdentityToken") != c.web:
			fail(400, "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider")
		case !known:
			fail(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
		default:
			session()
		}
		return
	}

	k, code, message := c.verify(r, body, "sts")
	if code != "" {
		fail(403, code, message)
		return
	}
	switch form.Get("Action") {
	case "GetCallerIdentity":
		answer(fmt.Sprintf("<Arn>%s</Arn><UserId>AIDA</UserId><Account>%s</Account>", k.arn, strings.Split(k.arn, ":")[4]))
	case "AssumeRole":
		switch {
		case ttl < 15*time.Minute || strings.Contains(k.arn, ":assumed-role/") && ttl > time.Hour:
			fail(400, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
		case !known || !strings.HasPrefix(k.arn, role.principal) || role.externalID != form.Get("ExternalId"):
			fail(403, "AccessDenied", "User: "+k.arn+" is not authorized to perform: sts:AssumeRole on resource: "+arn)
		case role.longest > 0 && ttl > role.longest:
			fail(400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
		default:
			session()
		}
	default:
		fail(400, "InvalidAction", "no")
	}
}

// serveIMDS is the metadata of an instance, version 2 alone.
func (c *cloud) serveIMDS(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hits[r.Method+" "+r.URL.Path]++
	const base = "/latest/meta-data/iam/security-credentials/"
	switch {
	case c.imdsDown:
		w.WriteHeader(500)
	case r.Header.Get("X-Forwarded-For") != "":
		w.WriteHeader(403)
	case r.URL.Path == "/latest/api/token":
		ttl, err := strconv.Atoi(r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		if r.Method != http.MethodPut || err != nil || ttl < 1 || ttl > 21600 {
			w.WriteHeader(400)
			return
		}
		c.serial++
		token := fmt.Sprintf("imds-token-%d", c.serial)
		c.tokens[token] = time.Now().Add(time.Duration(ttl) * time.Second)
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", strconv.Itoa(ttl))
		_, _ = io.WriteString(w, token)
	case !time.Now().Before(c.tokens[r.Header.Get("X-Aws-Ec2-Metadata-Token")]):
		w.WriteHeader(401)
	case r.URL.Path == "/latest/dynamic/instance-identity/document":
		_ = json.NewEncoder(w).Encode(map[string]string{"region": c.region})
	case c.role == "":
		w.WriteHeader(404)
	case r.URL.Path == base:
		_, _ = io.WriteString(w, c.role)
	case r.URL.Path == base+c.role:
		_ = json.NewEncoder(w).Encode(c.given)
	default:
		w.WriteHeader(404)
	}
}

// RoundTrip implements http.RoundTripper: without a network, by host name.
func (c *cloud) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if r.Body == nil {
		r.Body = http.NoBody
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	w := httptest.NewRecorder()
	switch host := r.URL.Hostname(); {
	case strings.Contains(host, "169.254.169.254"):
		c.serveIMDS(w, r)
	case slices.Contains(strings.FieldsFunc(host, func(r rune) bool { return r == '.' || r == '-' }), "sts"):
		c.serveSTS(w, r)
	default:
		c.serveS3(w, r)
	}
	out := w.Result()
	if v := out.Header.Get("Content-Length"); v != "" {
		out.ContentLength, _ = strconv.ParseInt(v, 10, 64)
	}
	return out, nil
}

// listen serves the three on loopback addresses.
func (c *cloud) listen() (s3, sts, imds string) {
	return listenHandler2(c.t, c.serveS3), listenHandler2(c.t, c.serveSTS), listenHandler2(c.t, c.serveIMDS)
}

func listenHandler2(t testing.TB, f http.HandlerFunc) string {
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv.URL
}

// source is a source without a network. Its time may be a bubble's.
func (c *cloud) source(change ...func(*Config)) *Source {
	cfg := Config{Bucket: bucket, Region: c.region}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	client := &http.Client{Transport: c, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.http, s.local = client, client
	return s
}
