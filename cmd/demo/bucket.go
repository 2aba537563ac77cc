package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

const bucketName = "demo-cloudtrail-logs"

// bucket writes objects, and counts for each tally what must arrive.
type bucket struct {
	client  *s3.Client
	tallies []*receivertest.Tally

	mu      sync.Mutex
	objects int // log files
	others  int // digests, markers and foreign files
	records int
	bytes   int64 // of log files, as stored
	streams map[string]bool
}

func newBucket(ctx context.Context, endpoint string, tallies ...*receivertest.Tally) (*bucket, error) {
	b := &bucket{
		client: s3.New(s3.Options{
			Region:       "us-east-1",
			BaseEndpoint: aws.String(endpoint),
			UsePathStyle: true,
			Credentials:  credentials.NewStaticCredentialsProvider(defaultKey, defaultSecret, ""),
		}),
		tallies: tallies,
		streams: map[string]bool{},
	}
	if _, err := b.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucketName)}); err != nil {
		return nil, fmt.Errorf("making the bucket: %w", err)
	}
	return b, nil
}

// put writes one object. Its records are expected from before the write, so
// that none arrives unexpected.
func (b *bucket) put(ctx context.Context, o *corpus.Object) error {
	for _, t := range b.tallies {
		for i := range o.Records {
			t.Expect(o.Records[i].Raw, o.Records[i].EventID)
		}
	}
	b.mu.Lock()
	if o.Kind == corpus.Log {
		b.objects++
		b.records += len(o.Records)
		b.bytes += int64(len(o.Body))
		b.streams[o.Account+"/"+o.LogType+"/"+o.Region] = true
	} else {
		b.others++
	}
	b.mu.Unlock()
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(bucketName), Key: aws.String(o.Key), Body: bytes.NewReader(o.Body),
		ContentLength: aws.Int64(int64(len(o.Body))),
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", o.Key, err)
	}
	return nil
}

// putAll writes many objects, a few at a time.
func (b *bucket) putAll(ctx context.Context, objects []corpus.Object) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range objects {
		g.Go(func() error { return b.put(ctx, &objects[i]) })
	}
	return g.Wait()
}

// counts is what stands in the bucket.
type counts struct {
	objects, others, records, streams int
	bytes                             int64
}

func (b *bucket) counts() counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return counts{b.objects, b.others, b.records, len(b.streams), b.bytes}
}
