package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/s3source"
)

// printContent reads the beginning of an object and prints it: the bytes as
// stored, and what they inflate to with all that is no plain text escaped.
func printContent(ctx context.Context, w io.Writer, conf *config.Config, s *config.Source, key string) error {
	store, err := s3source.New(bucketConfig(&conf.Agent, s))
	if err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	defer store.Close()
	body, err := store.Get(ctx, key, "")
	if err != nil {
		return err
	}
	defer body.Close()
	const enough = 64 << 10 // to inflate something of it
	head, err := io.ReadAll(io.LimitReader(body, enough))
	if err != nil {
		return fmt.Errorf("reading s3://%s/%s: %w", s.Bucket.Name, key, err)
	}
	if _, err := fmt.Fprintf(w, "\nstored: %d bytes, the first of them:\n%s", body.Size, hex.Dump(head[:min(len(head), content)])); err != nil {
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(head))
	if err != nil {
		_, err = fmt.Fprintf(w, "it is no gzip: %v\n", err)
		return err
	}
	text := make([]byte, content)
	n, err := io.ReadFull(z, text)
	if n == 0 {
		_, err = fmt.Fprintf(w, "it does not inflate: %v\n", err)
		return err
	}
	_, err = fmt.Fprintf(w, "inflated, the first %d bytes:\n%+q\n", n, text[:n])
	return err
}
