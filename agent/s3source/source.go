// Package s3source reads one bucket: it lists, gets and asks for the region,
// and says once, for everybody, what an error of S3 means. It is the only
// importer of the AWS SDK.
//
// Retries inside a call last seconds at most and never depend on how other
// calls went; everything longer is the caller's to decide.
package s3source

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/regions"
)

// Product is what every call to S3, STS and KMS has in its user agent, as
// app/trailpoll.
const Product = "trailpoll"

const (
	// firstRegion is where a bucket is asked for whose region nobody said.
	firstRegion = "us-east-1"
	// appID stands in the user agent of every call (app/trailpoll), and so in
	// the records that CloudTrail makes of them.
	appID = Product

	attempts   = 3
	firstDelay = 100 * time.Millisecond
)

// Source is one bucket as read with one set of credentials. It makes its
// connections when they are first needed. Safe for concurrent use.
type Source struct {
	cfg Config

	mu       sync.Mutex // guards what follows
	http     *http.Client
	local    *http.Client
	provider *provider   // nil until prepared, as are both clients
	conn     *connection // nil until the region is known
	asking   *question   // nil unless somebody is asking for the region
}

// connection is S3 in one region.
type connection struct {
	region string
	api    *s3.Client
}

// question is one attempt to find the bucket's region, for all who wait.
type question struct {
	done chan struct{}
	conn *connection
	err  error
}

// New returns a Source. It does no I/O. Its error is a fault.Error of kind
// Misconfigured for what can never work, such as FIPS endpoints where there
// are none.
func New(cfg Config) (*Source, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, err
	}
	return &Source{cfg: cfg}, nil
}

// Close lets go of idle connections. Calls and bodies still open go on.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
}

// BucketInfo is what S3 says of the bucket itself.
type BucketInfo struct {
	// Region is the bucket's; "" if S3 did not name it.
	Region string
	// Partition is the region's.
	Partition string
	// Status is the HTTP status that S3 answered; 0 if it did not.
	Status int
	// At is when S3 answered, by its own clock (whole seconds, UTC); zero if it
	// did not say.
	At time.Time
}

// Head asks S3 for the bucket itself (HeadBucket; needs s3:ListBucket). S3
// gives HEAD no reason: where it refuses, List says more. What S3 said is
// returned beside an error, too: it names the region also to those whom it
// refuses.
func (s *Source) Head(ctx context.Context) (BucketInfo, error) {
	var info BucketInfo
	err := s.do(ctx, call{op: opHead, bucket: s.cfg.Bucket}, func(ctx context.Context, c *connection) error {
		got, err := s.head(ctx, c)
		info = got
		return err
	})
	return info, err
}

// head returns what S3 says of the bucket, also beside an error; without one
// the connection's region where it names none.
func (s *Source) head(ctx context.Context, c *connection) (info BucketInfo, err error) {
	out, err := c.api.HeadBucket(ctx, &s3.HeadBucketInput{
		Bucket: &s.cfg.Bucket, ExpectedBucketOwner: s.owner(),
	})
	var header http.Header
	if err != nil {
		a, _ := answerOf(err)
		info.Status, header = a.status, a.header
	} else if resp, ok := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok && resp != nil {
		info.Status, header = resp.StatusCode, resp.Header
	}
	info.Region = header.Get(regionHeader)
	if at, err := http.ParseTime(header.Get("Date")); err == nil {
		info.At = at.UTC()
	}
	if info.Region == "" && err == nil {
		info.Region = c.region
	}
	if p, ok := regions.PartitionOf(info.Region); ok {
		info.Partition = p.ID
	}
	return info, err
}

// do makes one call, in the bucket's region. Where S3 says that the bucket is
// elsewhere and the region is ours to find, the call is made once more there;
// where it refuses the credentials and there are others by now, once more with
// those.
func (s *Source) do(ctx context.Context, what call, f func(context.Context, *connection) error) error {
	c, err := s.connect(ctx, what)
	if err != nil {
		return err
	}
	moved, renewed := false, false
	for {
		u := used{began: time.Now()}
		err = s.classify(ctx, what, c.region, f(context.WithValue(ctx, usedKey{}, &u), c))
		if err == nil {
			return nil
		}
		e, ok := errors.AsType[*fault.Error](err)
		switch {
		case !ok:
			return err
		case e.Kind == fault.WrongRegion && !moved && s.cfg.Region == Auto && e.Region != "" && e.Region != c.region:
			moved = true
			var cannot error
			if c, cannot = s.move(what, e.Region); cannot != nil {
				return cannot
			}
		case e.Kind == fault.BadCredentials && !renewed && s.provider.renew(ctx, &u):
			renewed = true
		default:
			return err
		}
	}
}

// connect returns the connection to the bucket's region, which it finds first
// if it must. Those who come while somebody is asking wait for that answer.
func (s *Source) connect(ctx context.Context, what call) (*connection, error) {
	for {
		s.mu.Lock()
		if s.conn != nil {
			defer s.mu.Unlock()
			return s.conn, nil
		}
		if s.cfg.Region != Auto {
			defer s.mu.Unlock()
			return s.open(what, s.cfg.Region)
		}
		q := s.asking
		if q == nil {
			q = &question{done: make(chan struct{})}
			s.asking = q
			s.mu.Unlock()
			s.ask(ctx, q, what)
			return q.conn, q.err
		}
		s.mu.Unlock()

		select {
		case <-q.done:
		case <-ctx.Done():
			return nil, what.ended(ctx)
		}
		if q.err != nil && !isContext(q.err) {
			return nil, q.err
		}
		// Found, or whoever asked gave up: see again.
	}
}

// ask finds the bucket's region and ends the question. A failure is not kept:
// the next call asks again.
func (s *Source) ask(ctx context.Context, q *question, what call) {
	region, err := s.find(ctx, what)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		q.conn, err = s.open(what, region)
	}
	q.err = err
	s.asking = nil
	close(q.done)
}

// find asks S3 for the bucket's region. S3 names it to everybody: "HeadBucket
// returns the bucket's location … also when the request is denied"
// (GetBucketLocation in the S3 API reference).
func (s *Source) find(ctx context.Context, what call) (string, error) {
	p, err := s.credentials()
	if err != nil {
		return "", err
	}
	region := firstRegion
	if s.cfg.Endpoint == "" {
		p.locate(ctx)
		region = p.home()
	}
	s.mu.Lock()
	c, err := s.dial(what, region)
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	u := used{began: time.Now()}
	info, err := s.head(context.WithValue(ctx, usedKey{}, &u), c)
	if info.Region == "" && fault.KindOf(s.classify(ctx, what, c.region, err)) == fault.BadCredentials && p.renew(ctx, &u) {
		info, err = s.head(ctx, c)
	}
	if info.Region != "" {
		return info.Region, nil
	}
	a, answered := answerOf(err)
	err = s.classify(ctx, what, c.region, err)
	if answered && s.cfg.Endpoint != "" && a.status < 500 && !a.isRedirect() {
		// Other implementations may name no region to HEAD. The call itself
		// says what is wrong, if anything is.
		return firstRegion, nil
	}
	return "", err
}

// move makes another region the bucket's.
func (s *Source) move(what call, region string) (*connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.region == region {
		return s.conn, nil
	}
	return s.open(what, region)
}

// open makes a region the bucket's. s.mu is held.
func (s *Source) open(what call, region string) (*connection, error) {
	c, err := s.dial(what, region)
	if err != nil {
		return nil, err
	}
	s.conn = c
	return c, nil
}

// dial returns a connection to a region. s.mu is held; nothing is sent.
func (s *Source) dial(what call, region string) (*connection, error) {
	if err := s.cfg.reachable(region); err != nil {
		return nil, &fault.Error{
			Kind: fault.Misconfigured, Op: what.String(), Err: err,
			Hint: "leave out fips or dual_stack, name the region, or name the host in endpoint",
		}
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}

	var options s3.Options
	options.Region = region
	options.AppID = appID
	options.HTTPClient = s.http
	options.Credentials = s.provider
	options.Logger = logging.Nop{}
	options.UsePathStyle = s.cfg.PathStyle
	if s.cfg.Endpoint != "" {
		options.BaseEndpoint = &s.cfg.Endpoint
	}
	if s.cfg.FIPS {
		options.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if s.cfg.DualStack {
		options.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	// The agent checks every object's own CRC; S3's checksum would be a
	// second pass over the bytes.
	options.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	options.DisableLogOutputChecksumValidationSkipped = true
	options.DisableMultiRegionAccessPoints = true
	options.Retryer = newRetryer()
	return &connection{region: region, api: s3.New(options)}, nil
}

// prepare makes what connections need. s.mu is held; nothing is sent.
func (s *Source) prepare() error {
	if s.provider != nil {
		return nil
	}
	if s.http == nil {
		client, err := newHTTPClient(&s.cfg)
		if err != nil {
			return err
		}
		s.http, s.local = client, newLocalClient()
	}
	s.provider = newProvider(&s.cfg, s.http, s.local)
	return nil
}

// newRetryer returns the retries inside a call, of S3 and of what credentials
// come from.
func newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		// The SDK's bucket of retry tokens is shared by all calls of a client:
		// a bad hour would leave the good one after it without retries.
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(backoff)
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(notTimeouts)}, o.Retryables...)
	})
}

// backoff is 100, 200, … ms, less up to a half. The caller's context ends it.
func backoff(attempt int, _ error) (time.Duration, error) {
	d := firstDelay << min(max(attempt-1, 0), 4)
	return d - rand.N(d/2), nil
}

// notTimeouts leaves to the caller what took its full time already.
func notTimeouts(err error) aws.Ternary {
	if e, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && e.Timeout() {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

func (s *Source) owner() *string {
	if s.cfg.BucketOwner == "" {
		return nil
	}
	return &s.cfg.BucketOwner
}

func (s *Source) payer() types.RequestPayer {
	if s.cfg.RequesterPays {
		return types.RequestPayerRequester
	}
	return ""
}

// bucketName returns s3://bucket/rest as an error shows it: what stands in a
// key can't break out of a line.
func bucketName(bucket string, rest ...string) string {
	name := "s3://" + strings.Join(append([]string{bucket}, rest...), "/")
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}
