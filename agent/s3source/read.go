package s3source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
)

// List returns one page of a listing (ListObjectsV2; needs s3:ListBucket).
// Its error is a fault.Error, or wraps ctx's.
func (s *Source) List(ctx context.Context, r listing.Request) (listing.Page, error) {
	what := call{op: opList, bucket: s.cfg.Bucket, rest: r.Prefix}
	in := &s3.ListObjectsV2Input{
		Bucket:              &s.cfg.Bucket,
		Prefix:              &r.Prefix,
		ExpectedBucketOwner: s.owner(),
		RequestPayer:        s.payer(),
		// XML 1.0 can't hold control characters, which keys may.
		EncodingType: types.EncodingTypeUrl,
		// Costs nothing, and tells a restored object from an archived one.
		OptionalObjectAttributes: []types.OptionalObjectAttributes{types.OptionalObjectAttributesRestoreStatus},
	}
	if r.Delimiter != "" {
		in.Delimiter = &r.Delimiter
	}
	// S3 ignores StartAfter beside a token; others may not.
	if r.Token != "" {
		in.ContinuationToken = &r.Token
	} else if r.StartAfter != "" {
		in.StartAfter = &r.StartAfter
	}
	if r.Limit > 0 && r.Limit < listing.MaxEntries {
		in.MaxKeys = aws.Int32(int32(r.Limit))
	}

	var page listing.Page
	err := s.do(ctx, what, func(ctx context.Context, c *connection) error {
		out, err := c.api.ListObjectsV2(ctx, in)
		if err != nil {
			return err
		}
		page, err = pageOf(out)
		return err
	})
	if err != nil {
		return listing.Page{}, err
	}
	return page, nil
}

// pageOf reads an answer. The SDK takes any XML for a listing, and a portal's
// page for an empty one: that would be a hole.
func pageOf(out *s3.ListObjectsV2Output) (listing.Page, error) {
	if out.Name == nil || out.IsTruncated == nil {
		return listing.Page{}, notS3(errors.New("the answer is not a listing"))
	}
	decode := func(s *string) (string, error) { return aws.ToString(s), nil }
	if out.EncodingType == types.EncodingTypeUrl {
		decode = unescape
	}
	page := listing.Page{At: dateOf(out.ResultMetadata)}
	if *out.IsTruncated {
		page.Token = aws.ToString(out.NextContinuationToken)
		if page.Token == "" {
			return listing.Page{}, notS3(errors.New("the listing goes on but says not how"))
		}
	}

	if n := len(out.Contents); n > 0 {
		page.Entries = make([]listing.Entry, 0, n)
	}
	for i := range out.Contents {
		o := &out.Contents[i]
		key, err := decode(o.Key)
		if err != nil {
			return listing.Page{}, notS3(err)
		}
		if misspelt(out, key) {
			continue
		}
		if n := len(page.Entries); n > 0 && key < page.Entries[n-1].Key {
			return listing.Page{}, &fault.Error{
				Kind: fault.Misconfigured,
				Err:  fmt.Errorf("the keys are not in order: %q after %q", key, page.Entries[n-1].Key),
				Hint: "only a bucket that is listed in the order of UTF-8 bytes can be read completely",
			}
		}
		page.Entries = append(page.Entries, listing.Entry{
			Key:          key,
			ETag:         aws.ToString(o.ETag),
			Size:         aws.ToInt64(o.Size),
			LastModified: aws.ToTime(o.LastModified).UTC(),
			Archived:     archived(o),
		})
	}
	for i := range out.CommonPrefixes {
		prefix, err := decode(out.CommonPrefixes[i].Prefix)
		if err != nil {
			return listing.Page{}, notS3(err)
		}
		if !misspelt(out, prefix) {
			page.Prefixes = append(page.Prefixes, prefix)
		}
	}
	return page, nil
}

// misspelt reports whether a key is not the one that is stored: a server that
// knows no encoding-type puts U+FFFD for what XML can't hold. Nobody can get
// such a key, no key of a log is like that, and its place in the order is
// wrong.
func misspelt(out *s3.ListObjectsV2Output, key string) bool {
	return out.EncodingType != types.EncodingTypeUrl && strings.ContainsRune(key, unicode.ReplacementChar)
}

// archived reports whether an object must be restored before it is read.
// GLACIER_IR is read at once; what INTELLIGENT_TIERING has archived, no
// listing says.
func archived(o *types.Object) bool {
	switch o.StorageClass {
	case types.ObjectStorageClassGlacier, types.ObjectStorageClassDeepArchive:
		// "RestoreExpiryDate is populated only when the object has already
		// been restored": RestoreStatus in the S3 API reference.
		return o.RestoreStatus == nil || o.RestoreStatus.RestoreExpiryDate == nil
	}
	return false
}

// unescape undoes encoding-type=url, in which a space is a plus sign.
func unescape(s *string) (string, error) {
	if s == nil || !strings.ContainsAny(*s, "%+") {
		return aws.ToString(s), nil
	}
	key, err := url.QueryUnescape(*s)
	if err != nil {
		return "", fmt.Errorf("decoding a key of the listing: %w", err)
	}
	return key, nil
}

// dateOf returns when S3 answered; zero if it did not say.
func dateOf(m middleware.Metadata) time.Time {
	if resp, ok := awsmiddleware.GetRawResponse(m).(*smithyhttp.Response); ok && resp != nil {
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}

// Get opens an object (GetObject; needs s3:GetObject, and kms:Decrypt where it
// is encrypted with a KMS key). With an ETag in ifMatch it fails with
// fault.Changed where the object is another one by now. The body is what is
// stored: gzip stays gzip. It is read under ctx, and closed by the caller.
// Errors of Get and of the body are fault.Errors, or wrap ctx's.
func (s *Source) Get(ctx context.Context, key, ifMatch string) (listing.Body, error) {
	what := call{op: opGet, bucket: s.cfg.Bucket, rest: key}
	in := &s3.GetObjectInput{
		Bucket:              &s.cfg.Bucket,
		Key:                 &key,
		ExpectedBucketOwner: s.owner(),
		RequestPayer:        s.payer(),
	}
	if ifMatch != "" {
		in.IfMatch = &ifMatch
	}

	var got listing.Body
	err := s.do(ctx, what, func(ctx context.Context, c *connection) error {
		out, err := c.api.GetObject(ctx, in)
		if err != nil {
			return err
		}
		size := int64(-1)
		if out.ContentLength != nil {
			size = *out.ContentLength
		}
		got = listing.Body{
			ReadCloser: &body{ReadCloser: out.Body, ctx: ctx, source: s, what: what, left: size},
			Size:       size,
			ETag:       aws.ToString(out.ETag),
		}
		if err := checkObject(out, ifMatch); err != nil {
			_ = out.Body.Close()
			return err
		}
		return nil
	})
	if err != nil {
		return listing.Body{}, err
	}
	return got, nil
}

// ObjectFacts is what S3 says of an object beside its content.
type ObjectFacts struct {
	Size         int64 // bytes, as stored; -1 if S3 did not say
	ETag         string
	LastModified time.Time
	ContentType  string
	// Encoding is the Content-Encoding: CloudTrail writes gzip, copies may have
	// lost it.
	Encoding string
	// Encryption is AES256, aws:kms or aws:kms:dsse; "" if S3 did not say.
	Encryption string
	// KMSKey is the ARN of the key, with aws:kms; "" otherwise.
	KMSKey string
	// BucketKey says that S3 asks KMS seldom, for a key of its own.
	BucketKey bool
	// StorageClass is the object's; STANDARD is "" in S3's answer, not here.
	StorageClass string
	// RequesterPays says that the bill for this very request went to us.
	RequesterPays bool
}

// Inspect tries to read an object and says what S3 tells of it (GetObject of
// one byte; needs what Get needs). Its errors are those of Get: unlike HEAD, GET
// is given a reason.
func (s *Source) Inspect(ctx context.Context, key string) (ObjectFacts, error) {
	in := &s3.GetObjectInput{
		Bucket: &s.cfg.Bucket, Key: &key, ExpectedBucketOwner: s.owner(), RequestPayer: s.payer(), Range: aws.String("bytes=0-0"),
	}
	var facts ObjectFacts
	err := s.do(ctx, call{op: opInspect, bucket: s.cfg.Bucket, rest: key}, func(ctx context.Context, c *connection) error {
		out, err := c.api.GetObject(ctx, in)
		if a, _ := answerOf(err); err != nil && a.status == http.StatusRequestedRangeNotSatisfiable {
			whole := *in // an empty object has no first byte
			whole.Range = nil
			out, err = c.api.GetObject(ctx, &whole)
		}
		if err != nil {
			return err
		}
		defer func() { _ = out.Body.Close() }()
		if err := checkObject(out, ""); err != nil {
			return err
		}
		facts = factsOf(out)
		return nil
	})
	return facts, err
}

func factsOf(out *s3.GetObjectOutput) ObjectFacts {
	facts := ObjectFacts{
		Size:          -1,
		ETag:          aws.ToString(out.ETag),
		LastModified:  aws.ToTime(out.LastModified).UTC(),
		ContentType:   aws.ToString(out.ContentType),
		Encoding:      aws.ToString(out.ContentEncoding),
		Encryption:    string(out.ServerSideEncryption),
		KMSKey:        aws.ToString(out.SSEKMSKeyId),
		BucketKey:     aws.ToBool(out.BucketKeyEnabled),
		StorageClass:  cmp.Or(string(out.StorageClass), "STANDARD"),
		RequesterPays: out.RequestCharged == types.RequestChargedRequester,
	}
	if _, whole, ok := strings.Cut(aws.ToString(out.ContentRange), "/"); ok {
		if n, err := strconv.ParseInt(whole, 10, 64); err == nil {
			facts.Size = n
		}
	} else if out.ContentLength != nil {
		facts.Size = *out.ContentLength
	}
	return facts
}

// checkObject refuses what is not the object that was asked for: a portal's
// page with status 200, or another object from a server that does not know
// If-Match.
func checkObject(out *s3.GetObjectOutput, ifMatch string) error {
	etag, kind := aws.ToString(out.ETag), strings.ToLower(aws.ToString(out.ContentType))
	if etag == "" && (strings.HasPrefix(kind, "text/html") || strings.Contains(kind, "xml")) {
		return notS3(errors.New("the answer is not an object, but of type " + kind))
	}
	if ifMatch != "" && etag != "" && strings.Trim(etag, `"`) != strings.Trim(ifMatch, `"`) {
		return &fault.Error{Kind: fault.Changed, Err: errors.New("the object is not the one that was listed")}
	}
	return nil
}

// body classifies what goes wrong while an object is read.
type body struct {
	io.ReadCloser
	ctx    context.Context
	source *Source
	what   call
	left   int64 // bytes that must still come; negative if S3 did not say
}

// Read implements io.Reader. A connection that ends too early is a fault.Error
// that wraps io.ErrUnexpectedEOF.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left >= 0 {
		b.left = max(0, b.left-int64(n))
	}
	switch {
	case err == nil, err == io.EOF && b.left <= 0:
		return n, err
	case b.ctx.Err() != nil:
		return n, b.what.ended(b.ctx)
	}
	if stall, ok := errors.AsType[*stallError](err); ok {
		return n, &fault.Error{Kind: fault.Temporary, Op: b.what.String(), Err: stall}
	}
	cause := io.ErrUnexpectedEOF
	if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		cause = fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, b.source.clean(rootOf(err).Error()))
	}
	return n, &fault.Error{Kind: fault.Temporary, Op: b.what.String(), Err: cause}
}
