package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// The identity that the S3 server knows, when no other is named.
const (
	defaultKey    = "trailpoll-demo"
	defaultSecret = "only-for-this-demonstration"
)

// runS3 is `demo s3`: versitygw (https://github.com/versity/versitygw) over a
// folder, on loopback. It says `listening on URL` when it takes requests.
func runS3(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("demo s3", flag.ContinueOnError)
	f.SetOutput(stderr)
	dir := f.String("dir", "", "where the objects lie; required")
	listen := f.String("listen", "127.0.0.1:0", "address; port 0 = any that is free")
	key := f.String("access-key", defaultKey, "the access key id that may do everything")
	secret := f.String("secret-key", defaultSecret, "its secret")
	region := f.String("region", "us-east-1", "the region that the server says it is in")
	child := f.Bool("end-with-stdin", false, "end when standard input ends, as with the death of the parent")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if *dir == "" || f.NArg() > 0 {
		fmt.Fprintln(stderr, "demo s3: -dir FOLDER is required, and no arguments but flags")
		return 2
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if *child {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	log.SetOutput(stderr)
	if err := serveS3(ctx, *dir, *listen, *region, *key, *secret, stdout); err != nil {
		fmt.Fprintln(stderr, "demo s3:", err)
		return 1
	}
	return 0
}

// serveS3 serves until ctx ends. There can be one server a process, and it
// changes the process's working folder.
func serveS3(ctx context.Context, dir, listen, region, key, secret string, stdout io.Writer) error {
	addr, err := freeAddress(listen)
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o750); err != nil {
		return fmt.Errorf("making the folder for objects: %w", err)
	}
	opts := posix.PosixOpts{Concurrency: 1000}
	opts.SetNewDirPerm(0o750)
	opts.SetNewFilePerm(0o640)
	var store meta.MetadataStorer = meta.XattrMeta{}
	if err := (meta.XattrMeta{}).Test(data); err != nil { // some file systems hold no attributes
		opts.SideCarDir = filepath.Join(dir, "attributes")
		if err := os.MkdirAll(opts.SideCarDir, 0o750); err != nil {
			return fmt.Errorf("making the folder for attributes: %w", err)
		}
		if store, err = meta.NewSideCar(opts.SideCarDir); err != nil {
			return fmt.Errorf("opening the folder for attributes: %w", err)
		}
	}
	backend, err := posix.New(data, store, opts)
	if err != nil {
		return fmt.Errorf("opening the folder for objects: %w", err)
	}
	// Without a place for users the server has an answer of its own, which S3
	// does not have, to a key that it does not know.
	users := filepath.Join(dir, "users")
	if err := os.MkdirAll(users, 0o750); err != nil {
		return fmt.Errorf("making the folder for users: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		done <- embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess: key, RootUserSecret: secret, Region: region, Ports: []string{addr},
			MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10000,
			KeepAlive: true, Quiet: true, IAMDir: users,
		})
	}()
	if err := answers(ctx, addr, done); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "listening on http://%s\n", addr)
	if err := <-done; err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving S3: %w", err)
	}
	return nil
}

// freeAddress replaces port 0 by one that is free now: the server can't say
// which port it was given.
func freeAddress(listen string) (string, error) {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return "", fmt.Errorf("finding a port: %w", err)
	}
	return ln.Addr().String(), ln.Close()
}

// answers waits until the server answers a request, any way it likes.
func answers(ctx context.Context, addr string, done <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			return resp.Body.Close()
		}
		select {
		case err := <-done:
			return fmt.Errorf("starting the S3 server: %w", errors.Join(err, errors.New("it ended at once")))
		case <-ctx.Done():
			return fmt.Errorf("waiting for the S3 server: %w", ctx.Err())
		case <-every.C:
		}
	}
}
