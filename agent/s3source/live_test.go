package s3source

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// The same against a real S3 server, which checks signatures.
func TestRealServer(t *testing.T) {
	endpoint := os.Getenv("TRAILPOLL_TEST_S3")
	key, secret := os.Getenv("TRAILPOLL_TEST_S3_KEY"), os.Getenv("TRAILPOLL_TEST_S3_SECRET")
	if endpoint == "" || key == "" || secret == "" {
		t.Skip("set TRAILPOLL_TEST_S3 to the endpoint of an S3 server, and TRAILPOLL_TEST_S3_KEY and TRAILPOLL_TEST_S3_SECRET to a key that may create buckets")
	}
	region := os.Getenv("TRAILPOLL_TEST_S3_REGION")
	if region == "" {
		region = firstRegion
	}
	setUp := at(t, endpoint, func(c *Config) {
		c.Region, c.Bucket = region, fmt.Sprintf("trailpoll-test-%d", time.Now().UnixNano())
		c.Credentials = Credentials{Type: Static, AccessKeyID: key, SecretAccessKey: secret}
	})
	name := setUp.cfg.Bucket
	_, hc := setUp.Head(t.Context()) // makes its connections
	if fault.KindOf(hc) != fault.NoBucket {
		t.Fatalf("a bucket that is not: %v", hc)
	}
	api := s3.New(s3.Options{
		Region: region, BaseEndpoint: &endpoint, UsePathStyle: true, HTTPClient: setUp.http,
		Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
	})
	if _, err := api.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	put := func(key string, body []byte) {
		_, err := api.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: &key, Body: bytes.NewReader(body)})
		if err != nil {
			t.Errorf("putting %q: %v", key, err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		p := s3.NewListObjectsV2Paginator(api, &s3.ListObjectsV2Input{Bucket: &name})
		for p.HasMorePages() {
			page, err := p.NextPage(ctx)
			if err != nil {
				return
			}
			for _, o := range page.Contents {
				_, _ = api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: o.Key})
			}
		}
		_, _ = api.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &name})
	})
	source := func(change ...func(*Config)) *Source {
		return at(t, endpoint, append([]func(*Config){func(c *Config) { *c = setUp.cfg }}, change...)...)
	}

	// Not every server can spell control characters.
	odd := slices.DeleteFunc(oddKeys(), func(k string) bool { return strings.ContainsAny(k, "\x01\x1f") })
	t.Run("named region", func(t *testing.T) { conformance(t, source(), odd, put) })
	t.Run("auto", func(t *testing.T) { conformance(t, source(auto), odd, put) })
	t.Run("process and profile", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("the command is that of a Unix shell")
		}
		command := printing(t, map[string]any{"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret})
		file := filepath.Join(t.TempDir(), "aws")
		write(t, file, "[p]\naws_access_key_id = "+key+"\naws_secret_access_key = "+secret+"\n")
		for _, c := range []Credentials{{Type: Process, Command: command}, {Type: Profile, Profile: "p", SharedFiles: []string{file}}} {
			if err := calls(t.Context(), source(using(c)), "list"); err != nil {
				t.Errorf("%v: %v", c, err)
			}
		}
	})
	t.Run("rotated", func(t *testing.T) {
		stale := Credentials{Type: Static, AccessKeyID: "AKGONE", SecretAccessKey: "gone", Reload: func() (Keys, error) {
			return Keys{AccessKeyID: key, SecretAccessKey: secret}, nil
		}}
		if err := calls(t.Context(), source(using(stale)), "list"); err != nil {
			t.Error(err)
		}
	})
	for what, tt := range map[string]struct {
		change func(*Config)
		kind   fault.Kind
	}{
		"wrong secret": {func(c *Config) { c.Credentials.SecretAccessKey += "x" }, fault.BadCredentials},
		"unknown key":  {func(c *Config) { c.Credentials.AccessKeyID = "AKUNKNOWN" }, fault.BadCredentials},
		"wrong region": {func(c *Config) { c.Region = "ap-south-2" }, fault.WrongRegion},
		"no bucket":    {func(c *Config) { c.Bucket += "-not" }, fault.NoBucket},
	} {
		for _, op := range []string{"list", "get"} {
			err := calls(t.Context(), source(tt.change), op)
			if fault.KindOf(err) != tt.kind {
				t.Errorf("%s, %s: %v, want %v: %v", what, op, fault.KindOf(err), tt.kind, err)
			}
		}
	}
}
