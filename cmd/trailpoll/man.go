//go:build man

package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the build tag "man" the program only writes its manual pages:
//
//	go run -tags man ./cmd/trailpoll DIR
//
// What that needs stays out of the product.
func main() {
	if err := writeManual(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
}

func writeManual(dir string) error {
	date := time.Now()
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		date = time.Unix(n, 0)
	}
	date = date.UTC()
	root := newRoot()
	root.InitDefaultCompletionCmd()
	quiet(root)
	return doc.GenManTree(root, &doc.GenManHeader{
		Title: "TRAILPOLL", Section: "1", Date: &date, Source: "trailpoll " + thisBuild().Version, Manual: "trailpoll",
	}, dir)
}

// quiet leaves out the line that names the library, and a date that is not ours.
func quiet(c *cobra.Command) {
	c.DisableAutoGenTag = true
	for _, sub := range c.Commands() {
		quiet(sub)
	}
}
