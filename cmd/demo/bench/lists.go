package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// listing is another way to see what is in the bucket: the whole of it is
// listed, since it does not know where what is new would be.
type listing struct {
	Name string `json:"name"`
	Cost cost   `json:"cost"`
}

// lister is a program that lists a bucket, and the Debian package it is in.
type lister struct {
	name, program, pack string
	args                func(endpoint string) []string
}

func listers() []lister {
	return []lister{
		{"rclone lsf -R --fast-list", "rclone", "rclone", func(endpoint string) []string {
			return []string{
				"lsf", "-R", "--fast-list", "--config", os.DevNull, "--s3-provider", "Other", "--s3-endpoint", endpoint,
				"--s3-region", region, "--s3-env-auth", "--s3-force-path-style", "--s3-list-version", "2", ":s3:" + bucketName + "/AWSLogs",
			}
		}},
		{"aws s3api list-objects-v2", "aws", "awscli", func(endpoint string) []string {
			return []string{
				"--endpoint-url", endpoint, "--region", region, "s3api", "list-objects-v2",
				"--bucket", bucketName, "--prefix", "AWSLogs/", "--query", "length(Contents)",
			}
		}},
	}
}

// find returns the program's path; "" if it is neither here nor can be
// installed, which on Debian is done as root if may says so.
func (l *lister) find(ctx context.Context, may bool) string {
	path, err := exec.LookPath(l.program)
	if err == nil || !may || runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return path
	}
	install := exec.CommandContext(ctx, "apt-get", "install", "-y", "-qq", "--no-install-recommends", l.pack)
	install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if install.Run() != nil {
		return ""
	}
	path, _ = exec.LookPath(l.program)
	return path
}

// measureLists lists the bucket with other programs, once each.
func (e *environment) measureLists(ctx context.Context, st *stage, keys int) (all []listing, err error) {
	home, err := os.MkdirTemp("", "trailpoll-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	for _, l := range listers() {
		path := l.find(ctx, e.install)
		if path == "" {
			fmt.Fprintf(e.stderr, "not compared with %s: it is not here\n", l.name)
			continue
		}
		st.reset()
		// No settings of whoever runs the benchmark.
		env := []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1",
			"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_CONFIG_FILE=" + filepath.Join(home, "none"),
		}
		c, err := runChildIn(ctx, env, path, l.args(st.s3.URL()))
		if c.asked(st.s3); err == nil && c.Lists < keys/1000 {
			err = fmt.Errorf("%d LISTs are too few for %d keys", c.Lists, keys)
		}
		if err != nil { // a version of it that wants something else: no reason to lose all the rest
			fmt.Fprintf(e.stderr, "not compared with %s: %v\n", l.name, err)
			continue
		}
		fmt.Fprintf(e.stderr, "%s, %s: %d LISTs, %.2f CPU-seconds, %.2f s\n", idleName, l.name, c.Lists, c.CPU, c.Wall)
		all = append(all, listing{Name: l.name, Cost: c})
	}
	return all, nil
}
