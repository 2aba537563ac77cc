package main

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// bareCommand is the hidden command that runs the bare loop.
const bareCommand = "bare"

// The identity that both programs read the bucket with; s3test takes any.
const (
	accessKey = "AKIAIOSFODNN7EXAMPLE"
	secretKey = "only-for-this-benchmark"
	region    = "us-east-1"
)

// bare is the bare loop: it lists the bucket, gets every object, inflates it,
// splits it into records and posts them as NDJSON. It keeps no state, tries
// nothing again, and stops at the first error. What it costs is the least that
// a program built from these parts costs.
type bare struct {
	api     *s3.Client
	http    *http.Client
	url     string
	batches sync.Pool // of *batch
	full    chan *batch
	workers int // that fetch
	stdlib  bool
}

// batch is NDJSON on its way.
type batch struct {
	buf     bytes.Buffer
	records int
}

// runBare is the hidden command.
func runBare(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bare", flag.ContinueOnError)
	endpoint := f.String("endpoint", "", "of S3")
	url := f.String("url", "", "where to post")
	workers := f.Int("downloads", downloads, "objects fetched at once")
	stdlib := f.Bool("stdlib", false, "inflate and split with the standard library")
	if err := f.Parse(args); err != nil {
		return err
	}
	posts := http.DefaultTransport.(*http.Transport).Clone()
	posts.Proxy = nil
	posts.MaxIdleConnsPerHost, posts.MaxConnsPerHost = connections, connections
	b := &bare{
		api: s3.New(s3.Options{
			Region: region, BaseEndpoint: endpoint, UsePathStyle: true,
			Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
			HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
				t.Proxy = nil
				t.MaxIdleConns, t.MaxIdleConnsPerHost = *workers, *workers
			}),
			ResponseChecksumValidation:                aws.ResponseChecksumValidationWhenRequired,
			DisableLogOutputChecksumValidationSkipped: true,
		}),
		http:    &http.Client{Transport: posts},
		url:     *url,
		batches: sync.Pool{New: func() any { return new(batch) }},
		full:    make(chan *batch),
		workers: *workers,
		stdlib:  *stdlib,
	}
	return b.run(ctx)
}

func (b *bare) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	keys := make(chan string, 1000)
	g.Go(func() error {
		defer close(keys)
		return b.list(ctx, keys)
	})
	g.Go(func() error {
		defer close(b.full)
		fetching, ctx := errgroup.WithContext(ctx)
		for range b.workers {
			fetching.Go(func() error { return b.fetch(ctx, keys) })
		}
		return fetching.Wait()
	})
	for range connections {
		g.Go(func() error {
			for full := range b.full {
				if err := b.post(ctx, full); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// list gives every key of the bucket.
func (b *bare) list(ctx context.Context, keys chan<- string) error {
	pages := s3.NewListObjectsV2Paginator(b.api, &s3.ListObjectsV2Input{
		Bucket: aws.String(bucketName), Prefix: aws.String("AWSLogs/"),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("listing: %w", err)
		}
		for i := range page.Contents {
			select {
			case keys <- *page.Contents[i].Key:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// fetch gets, inflates and splits objects until there are no more keys.
func (b *bare) fetch(ctx context.Context, keys <-chan string) error {
	var unzip gzip.Reader
	var inflated bytes.Buffer
	var dec jsontext.Decoder
	out := b.batches.Get().(*batch)
	for key := range keys {
		got, err := b.api.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucketName), Key: &key})
		if err != nil {
			return fmt.Errorf("getting %s: %w", key, err)
		}
		if b.stdlib {
			out, err = b.decode(ctx, got.Body, out)
			if err = errors.Join(err, got.Body.Close()); err != nil {
				return fmt.Errorf("reading %s: %w", key, err)
			}
			continue
		}
		inflated.Reset()
		if err = unzip.Reset(got.Body); err == nil {
			_, err = inflated.ReadFrom(&unzip)
		}
		if err := errors.Join(err, got.Body.Close()); err != nil {
			return fmt.Errorf("inflating %s: %w", key, err)
		}
		// A decoder over a bytes.Buffer works in the buffer's own memory.
		dec.Reset(&inflated, jsontext.AllowDuplicateNames(true))
		if out, err = b.split(ctx, &dec, out); err != nil {
			return fmt.Errorf("splitting %s: %w", key, err)
		}
	}
	if out.records > 0 {
		return b.hand(ctx, out)
	}
	return nil
}

// split appends an object's records to a batch and hands full ones on. It
// returns the one that is not full.
func (b *bare) split(ctx context.Context, dec *jsontext.Decoder, out *batch) (*batch, error) {
	for range 3 { // `{`, `"Records"`, `[`
		if _, err := dec.ReadToken(); err != nil {
			return out, err
		}
	}
	for dec.PeekKind() == '{' {
		raw, err := dec.ReadValue()
		if err != nil {
			return out, err
		}
		if out, err = b.add(ctx, out, raw); err != nil {
			return out, err
		}
	}
	for range 2 { // `]`, `}`
		if _, err := dec.ReadToken(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// decode is how a program with the standard library alone would do it.
func (b *bare) decode(ctx context.Context, r io.Reader, out *batch) (*batch, error) {
	unzip, err := stdgzip.NewReader(r)
	if err != nil {
		return out, err
	}
	var log struct{ Records []json.RawMessage }
	if err := json.NewDecoder(unzip).Decode(&log); err != nil {
		return out, err
	}
	for _, raw := range log.Records {
		if out, err = b.add(ctx, out, raw); err != nil {
			return out, err
		}
	}
	return out, nil
}

// add puts a record into a batch, and returns the batch for the next one.
func (b *bare) add(ctx context.Context, out *batch, raw []byte) (*batch, error) {
	if out.records == batchRecords || out.records > 0 && out.buf.Len()-out.records+len(raw) > batchBytes {
		if err := b.hand(ctx, out); err != nil {
			return out, err
		}
		out = b.batches.Get().(*batch)
	}
	out.buf.Write(raw)
	out.buf.WriteByte('\n')
	out.records++
	return out, nil
}

func (b *bare) hand(ctx context.Context, full *batch) error {
	select {
	case b.full <- full:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// post sends a batch.
func (b *bare) post(ctx context.Context, full *batch) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(full.buf.Bytes()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := b.http.Do(req)
	if err != nil {
		return fmt.Errorf("posting: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("posting: %s", resp.Status)
	}
	full.buf.Reset()
	full.records = 0
	b.batches.Put(full)
	return nil
}
