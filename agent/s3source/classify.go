package s3source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/regions"
)

// regionHeader is where S3 names a bucket's region, also beside an error.
const regionHeader = "X-Amz-Bucket-Region"

// operation is what a call does.
type operation int

const (
	opList operation = iota
	opGet
	opHead
	opInspect
	opIdentity
	opReach
)

// reads reports whether the call reads an object.
func (o operation) reads() bool { return o == opGet || o == opInspect }

// call is one call, as its errors name it.
type call struct {
	op           operation
	bucket, rest string // rest: the prefix or key, of which opHead has none; opIdentity has neither, opReach has a URL
}

// String returns the call as a gerund.
func (c call) String() string {
	switch c.op {
	case opIdentity:
		return "asking STS who we are"
	case opReach:
		return "connecting to " + c.rest
	case opHead:
		return "asking for " + bucketName(c.bucket)
	case opInspect:
		return "looking at " + bucketName(c.bucket, c.rest)
	case opGet:
		return "getting " + bucketName(c.bucket, c.rest)
	}
	return "listing " + bucketName(c.bucket, c.rest)
}

// ended is the error of a call whose context has ended.
func (c call) ended(ctx context.Context) error { return fmt.Errorf("%s: %w", c, ctx.Err()) }

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// notS3 is an answer that no S3 gives.
func notS3(err error) *fault.Error {
	return &fault.Error{
		Kind: fault.Temporary, Err: err,
		Hint: "it is not S3 that answers: look for a captive portal, a proxy's error page or a wrong endpoint",
	}
}

// answer is what S3 answered beside an error.
type answer struct {
	status        int
	code, message string
	header        http.Header
}

func (a *answer) isRedirect() bool { return a.status >= 300 && a.status < 400 }

// derived reports whether the code is only the status in words, because the
// answer had no body to tell one.
func (a *answer) derived() bool {
	return a.code == "" || a.code == strings.ReplaceAll(http.StatusText(a.status), " ", "") || a.code == "UnknownError"
}

// answerOf returns what S3 answered, and false if it did not answer at all.
func answerOf(err error) (answer, bool) {
	var a answer
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
	}
	resp, ok := errors.AsType[interface {
		error
		HTTPResponse() *smithyhttp.Response
	}](err)
	// For a request that was never answered the SDK makes up an answer of
	// status 0.
	if !ok || resp.HTTPResponse() == nil || resp.HTTPResponse().StatusCode == 0 {
		return a, false
	}
	a.status, a.header = resp.HTTPResponse().StatusCode, resp.HTTPResponse().Header
	return a, true
}

// verdict is what an error means.
type verdict struct {
	kind fault.Kind
	hint string
}

// classify makes what a call returned what its caller returns: nil, an error
// that wraps ctx's, or a fault.Error. It is the one place that knows what an
// error means, and goes by codes and statuses, never by the SDK's types for
// single errors: the same error has a type from one call and none from another.
func (s *Source) classify(ctx context.Context, what call, region string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return what.ended(ctx)
	}
	if ours, ok := errors.AsType[*fault.Error](err); ok {
		ours.Op = what.String()
		return ours
	}

	out := &fault.Error{Op: what.String()}
	if lacking, ok := errors.AsType[*credentialsError](err); ok {
		v := s.lacking(lacking)
		out.Kind, out.Hint, out.Err = v.kind, v.hint, s.text(lackingText(lacking))
		return out
	}
	a, answered := answerOf(err)
	if !answered {
		v := s.unanswered(err)
		out.Kind, out.Hint, out.Err = v.kind, v.hint, s.text(transportText(err))
		return out
	}

	v := s.answered(what, region, &a, err)
	out.Kind, out.Hint, out.Err = v.kind, v.hint, s.text(a.text(err))
	switch v.kind {
	case fault.WrongRegion:
		out.Region = a.region()
	case fault.Throttled, fault.Temporary:
		out.RetryAfter = a.retryAfter()
	}
	return out
}

// text is what the caller's log will show.
func (s *Source) text(t string) error { return errors.New(s.clean(t)) }

// shortest is the length of what may be a secret: AWS's have 40 characters.
const shortest = 6

// clean makes a text that came from elsewhere fit for a log: one line, not too
// long, without our secrets.
func (s *Source) clean(t string) string {
	s.mu.Lock()
	p := s.provider
	s.mu.Unlock()
	secrets := []string{s.cfg.Credentials.SecretAccessKey, s.cfg.Credentials.SessionToken}
	if p != nil {
		secrets = append(secrets, p.secrets()...)
	}
	for _, secret := range secrets {
		if len(secret) >= shortest {
			t = strings.ReplaceAll(t, secret, "[redacted]")
		}
	}
	t = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(t, " "))
	const most = 600
	if len(t) > most {
		t = strings.ToValidUTF8(t[:most], "") + " …"
	}
	return t
}

func (a *answer) text(err error) string {
	t := a.code
	if a.message != "" && a.message != a.code {
		t += ": " + a.message
	}
	if a.code == "" {
		t = "reading the answer: " + rootOf(err).Error()
	}
	t += " (HTTP " + strconv.Itoa(a.status)
	if id := a.header.Get("X-Amz-Request-Id"); id != "" {
		t += ", request " + id
	}
	return t + ")"
}

// rootOf returns the innermost error.
func rootOf(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// transportText leaves out the URL, with all that stands in its query.
func transportText(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return rootOf(err).Error()
}

// region returns the bucket's region, if the answer names it.
func (a *answer) region() string {
	if r := a.header.Get(regionHeader); r != "" {
		return r
	}
	// Some implementations say it in the message alone.
	if m := expecting.FindStringSubmatch(a.message); m != nil {
		return m[1]
	}
	return ""
}

var (
	expecting = regexp.MustCompile(`expecting ['"]([A-Za-z0-9_-]+)['"]`)
	kmsKey    = regexp.MustCompile(`arn:aws[a-z-]*:kms:[A-Za-z0-9:/_-]+`)
)

// retryAfter returns how long S3 asks to be left alone: seconds, or a date that
// is measured against S3's own clock.
func (a *answer) retryAfter() time.Duration {
	v := a.header.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	until, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return 0
	}
	return max(0, until.Sub(now))
}

// answered says what an answer means.
func (s *Source) answered(what call, region string, a *answer, err error) verdict {
	if v, ok := s.byCode(what, region, a); ok {
		return v
	}
	// S3 tells everybody but HEAD a code, and puts a request id on everything.
	foreign := a.derived() && (what.op != opHead || a.header.Get("X-Amz-Request-Id") == "")
	switch {
	case brokenOff(err):
		return verdict{kind: fault.Temporary}
	case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable:
		return verdict{kind: fault.Throttled}
	case a.status == http.StatusProxyAuthRequired:
		return verdict{fault.Unreachable, "the proxy asks for a login: write proxy = \"http://user:password@host:port\""}
	case a.status >= 500:
		return verdict{kind: fault.Temporary}
	case a.isRedirect(), a.status < 300, foreign:
		return verdict{fault.Temporary, notS3(nil).Hint}
	case a.status == http.StatusForbidden:
		return verdict{fault.Denied, s.grant(what)}
	case a.status == http.StatusNotFound && what.op == opHead:
		return s.noBucket()
	case a.status == http.StatusPreconditionFailed:
		return verdict{kind: fault.Changed}
	case a.status == http.StatusBadRequest && what.op == opHead:
		return verdict{fault.BadCredentials, "S3 gives HEAD no reason; an expired token and a malformed access key are the usual ones"}
	case a.status == http.StatusNotImplemented:
		return verdict{fault.Misconfigured, "the endpoint does not offer this call"}
	}
	return verdict{kind: fault.Temporary}
}

// brokenOff reports whether an answer began well and then broke off.
func brokenOff(err error) bool {
	if _, ok := errors.AsType[*stallError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.ErrUnexpectedEOF)
}

// byCode says what an error code means, if it means something by itself. The
// codes are those of the S3 API reference ("List of error codes"), of the
// common errors of AWS's other services, and of the SDK's retryer.
func (s *Source) byCode(what call, region string, a *answer) (verdict, bool) {
	switch code := a.code; code {
	case "NoSuchKey", "NoSuchVersion":
		return verdict{kind: fault.Gone}, true
	case "NoSuchBucket":
		return s.noBucket(), true
	case "PreconditionFailed":
		return verdict{kind: fault.Changed}, true
	case "InvalidObjectState":
		return verdict{fault.Archived, "the object is in an archive class: restore it in S3"}, true

	case "AccessDenied", "AllAccessDisabled", "AccountProblem", "NotSignedUp", "UserSuspended":
		if what.op.reads() && strings.Contains(a.message, "kms:") {
			return verdict{fault.KMSDenied, "grant kms:Decrypt on " + key(a.message) +
				" in the identity's policy and in the policy of the key"}, true
		}
		return verdict{fault.Denied, s.grant(what)}, true

	case "PermanentRedirect", "TemporaryRedirect", "MovedPermanently", "TemporaryMoved",
		"IllegalLocationConstraintException", "AuthorizationHeaderMalformed", "BadRequest":
		if right := a.region(); right != "" && right != region {
			return verdict{fault.WrongRegion, fmt.Sprintf("set region = %q, or %q", right, Auto)}, true
		}
		switch {
		case a.isRedirect() && s.cfg.Endpoint == "":
			return verdict{fault.WrongRegion, "set region to the bucket's region, or \"" + Auto + "\""}, true
		case code == "AuthorizationHeaderMalformed":
			return verdict{fault.BadCredentials, "the access key is malformed: check access_key_id, and region"}, true
		}
		return verdict{}, false

	case "ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired":
		return verdict{fault.BadCredentials, "the session token has expired: give the agent new credentials"}, true
	case "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "XAdminUserNotFound": // the last is versitygw's
		return verdict{fault.BadCredentials, "S3 does not know the access key:" +
			" it was deleted, or belongs to another AWS partition"}, true
	case "SignatureDoesNotMatch", "InvalidSignatureException":
		return verdict{fault.BadCredentials, "the secret access key is not that of the access key," +
			" or a proxy on the way rewrites requests"}, true
	case "RequestTimeTooSkewed":
		return verdict{fault.BadCredentials, "set this machine's clock: S3 takes no request that is 15 minutes off"}, true
	case "InvalidToken", "InvalidSecurity", "AuthFailure", "CredentialsNotSupported", "MissingSecurityHeader",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException", "IncompleteSignature":
		return verdict{fault.BadCredentials, "check the source's credentials"}, true

	case "InvalidBucketName":
		return verdict{fault.Misconfigured, "check bucket: S3 takes no bucket of this name"}, true
	case "SlowDown", "SlowDownRead", "Throttling", "ThrottlingException", "ThrottledException",
		"RequestThrottled", "RequestThrottledException", "TooManyRequestsException", "TooManyRequests",
		"RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException", "PriorRequestNotComplete",
		"ServiceUnavailable", "KMS.ThrottlingException":
		return verdict{kind: fault.Throttled}, true

	default:
		if strings.HasPrefix(code, "KMS.") { // KMS.DisabledException, KMS.NotFoundException …
			return verdict{fault.KMSDenied, "look after " + key(a.message) + ": it must exist and be enabled"}, true
		}
		return verdict{}, false
	}
}

// key names the KMS key that a message speaks of.
func key(message string) string {
	if arn := kmsKey.FindString(message); arn != "" {
		return arn
	}
	return "the KMS key that the object is encrypted with"
}

func (s *Source) noBucket() verdict {
	hint := "check bucket"
	if s.cfg.Region == Auto && s.cfg.Endpoint == "" {
		hint += `; region "auto" finds buckets of the partition aws: name the region of one in GovCloud, China or a sovereign cloud`
	}
	return verdict{fault.NoBucket, hint}
}

// grant says what may be missing where S3 refuses.
func (s *Source) grant(what call) string {
	partition := "aws"
	if p, ok := regions.PartitionOf(s.cfg.home); ok {
		partition = p.ID
	}
	arn := "arn:" + partition + ":s3:::" + s.cfg.Bucket
	hint := "grant s3:ListBucket on " + arn
	if what.op.reads() {
		hint = "grant s3:GetObject on " + arn + "/*, and kms:Decrypt if its objects are encrypted with a KMS key"
	}
	hint += " in the identity's policy and, for another account's bucket, in the bucket policy," +
		" which may also tell networks apart"
	if s.cfg.BucketOwner != "" {
		hint += "; or the bucket is not of account " + s.cfg.BucketOwner + " (bucket_owner)"
	}
	if !s.cfg.RequesterPays {
		hint += "; a Requester Pays bucket needs requester_pays = true"
	}
	return hint
}

// reachS3 is what to do where S3 is not reached.
const reachS3 = "check the firewall and the route to S3, endpoint, and whether a proxy is needed"

// unanswered says what it means that nobody answered.
func (s *Source) unanswered(err error) verdict {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		hint := "there is no DNS answer for " + strconv.Quote(e.Name) + ": check region, endpoint and DNS"
		if s.cfg.Endpoint != "" && !s.cfg.PathStyle && strings.HasPrefix(e.Name, s.cfg.Bucket+".") {
			hint = "there is no DNS answer for " + strconv.Quote(e.Name) + ": set path_style = true if the endpoint has no names for buckets"
		}
		return verdict{fault.Unreachable, hint}
	}
	if _, ok := errors.AsType[*proxyError](err); ok {
		return verdict{fault.Unreachable, "check proxy, its login and what it lets through"}
	}
	text := err.Error()
	if isTLS(err) || strings.Contains(text, "server gave HTTP response to HTTPS client") {
		if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
			return verdict{fault.Unreachable, "the server's certificate is out of date, or this machine's clock is wrong"}
		}
		return verdict{fault.Unreachable, "if the network inspects TLS, set ca_file in [source.tls] to its certificate; check endpoint"}
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && (e.Op == "dial" || e.Op == "proxyconnect" || e.Op == "socks connect") {
		if e.Op != "dial" || strings.Contains(text, "proxyconnect") {
			return verdict{fault.Unreachable, "the proxy is not reached: check proxy"}
		}
		return verdict{fault.Unreachable, reachS3}
	}
	if strings.Contains(text, "endpoint rule error") || strings.Contains(text, "resolve service endpoint") {
		return verdict{fault.Misconfigured, "check bucket, region and endpoint"}
	}
	return verdict{kind: fault.Temporary}
}

// isTLS reports whether the two sides did not agree on TLS.
func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "remote error" || strings.Contains(err.Error(), "TLS handshake timeout")
}
