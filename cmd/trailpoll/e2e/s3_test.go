//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// The server's one identity, and its region.
const (
	accessKey   = "trailpoll-e2e"
	secretKey   = "the-secret-of-the-end-to-end-tests"
	homeRegion  = "us-east-1"
	secretInEnv = "TRAILPOLL_E2E_SECRET"
)

var errNoGateway = errors.New("needs versitygw: put it into PATH, or name it in TRAILPOLL_VERSITYGW")

// gateway is a versitygw process.
type gateway struct {
	path     string
	cmd      *exec.Cmd
	ended    chan struct{}
	endpoint string
	said     bytes.Buffer // to be read after it has ended
	buckets  atomic.Int64
}

func findGateway() (string, error) {
	if path := os.Getenv("TRAILPOLL_VERSITYGW"); path != "" {
		return path, nil
	}
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	if home, err := os.UserHomeDir(); err == nil {
		if path, err := exec.LookPath(filepath.Join(home, "go", "bin", "versitygw")); err == nil {
			return path, nil
		}
	}
	return "", errNoGateway
}

// startGateway starts a server over an absolute folder. It can't say which port
// it was given, so one that is free is chosen, and another if somebody was
// quicker.
func startGateway(dir string) (g *gateway, err error) {
	path, err := findGateway()
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"data", "iam"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o750); err != nil {
			return nil, err
		}
	}
	for range 3 {
		if g, err = startGatewayOnce(path, dir); err == nil {
			return g, nil
		}
	}
	return nil, err
}

func startGatewayOnce(path, dir string) (*gateway, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	g := &gateway{path: path, endpoint: "http://" + addr, ended: make(chan struct{})}
	g.cmd = exec.Command(path, "--port", addr, "--region", homeRegion, "--iam-dir", filepath.Join(dir, "iam"),
		"--quiet", "--keep-alive", "posix", filepath.Join(dir, "data"))
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
	g.cmd.Stdout, g.cmd.Stderr = &g.said, &g.said
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	go func() {
		_ = g.cmd.Wait()
		close(g.ended)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if !within(30*time.Second, func() bool { return g.gone() || g.answers(ctx) }) || g.gone() {
		g.stop()
		return nil, fmt.Errorf("starting %s: it does not answer\n%s", path, g.said.Bytes())
	}
	return g, nil
}

func (g *gateway) gone() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// answers reports whether the server answers a request, any way it likes.
func (g *gateway) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.endpoint, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil
}

func (g *gateway) stop() {
	_ = g.cmd.Process.Kill()
	<-g.ended
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// stranger makes an identity that may do nothing.
func (g *gateway) stranger(t *testing.T, key, secret string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), g.path, "admin", "--access", accessKey, "--secret", secretKey,
		"--region", homeRegion, "--endpoint-url", g.endpoint,
		"create-user", "--access", key, "--secret", secret, "--role", "user").CombinedOutput()
	if err != nil {
		t.Fatalf("making a user: %v\n%s", err, out)
	}
}

// bucket is a bucket of the server.
type bucket struct {
	name   string
	server *gateway
	client *s3.Client
}

// newBucket makes an empty bucket.
func newBucket(t *testing.T) *bucket {
	t.Helper()
	g := server(t)
	b := &bucket{
		name:   fmt.Sprintf("trailpoll-e2e-%d", g.buckets.Add(1)),
		server: g,
		client: s3.New(s3.Options{
			Region: homeRegion, BaseEndpoint: &g.endpoint, UsePathStyle: true,
			Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		}),
	}
	if _, err := b.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &b.name}); err != nil {
		t.Fatal(err)
	}
	return b
}

// put writes one object.
func (b *bucket) put(t *testing.T, key string, body []byte) {
	t.Helper()
	if err := b.write(t.Context(), key, bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
}

func (b *bucket) write(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.name, Key: &key, Body: body, ContentLength: aws.Int64(size),
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}

// putAll writes objects, a few at a time, and has each told to the receivers
// before it is written, so that none comes unexpected. It returns how many log
// files and how many records there were.
func (b *bucket) putAll(t *testing.T, objects iter.Seq[corpus.Object], receivers ...*receiver) (files, records int) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	for o := range objects {
		if o.Kind == corpus.Log {
			files++
			records += len(o.Records)
		}
		for _, r := range receivers {
			r.expect(&o)
		}
		g.Go(func() error { return b.write(ctx, o.Key, bytes.NewReader(o.Body), int64(len(o.Body))) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return files, records
}
