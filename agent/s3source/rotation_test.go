package s3source

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// poll lists every minute for so long, by several callers, and returns what
// failed.
func poll(t *testing.T, s *Source, length time.Duration, each func(minute int)) []error {
	t.Helper()
	var failed []error
	for minute := range int(length / time.Minute) {
		if each != nil {
			each(minute)
		}
		results := make(chan error, 4)
		for range 4 {
			go func() { results <- calls(t.Context(), s, "list") }()
		}
		for range 4 {
			if err := <-results; err != nil {
				failed = append(failed, fmt.Errorf("minute %d: %w", minute, err))
			}
		}
		time.Sleep(time.Minute)
	}
	return failed
}

// A day of an instance whose keys rotate every few hours, with a role on
// top for an hour each: no request fails, none is even refused, and STS and the
// metadata are asked about as often as they must be. Outages shorter than what
// is left of the credentials are not noticed.
func TestRefreshWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.offer(sessionOf(middleARN, "i-1"), 6*time.Hour)
		c.role, c.roles[readARN] = "middle", trustPolicy{principal: sessionOf(middleARN, "i-1")}
		s := c.source(using(Credentials{Type: EC2Role, Roles: []Role{{ARN: readARN}}}))
		failed := poll(t, s, 24*time.Hour, func(minute int) {
			c.mu.Lock()
			c.stsDown = minute > 60 && minute%60 >= 55 && minute%60 < 59 // when it would be asked
			c.imdsDown = minute > 60 && minute%350 < 4
			c.mu.Unlock()
			if minute%(6*60-6) == 0 { // EC2 has new keys at least five minutes before the old ones end
				c.offer(sessionOf(middleARN, "i-1"), 6*time.Hour)
			}
		})
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(failed) > 0 || c.refused > 0 {
			t.Errorf("%d of %d calls failed, %d requests were refused; first: %v", len(failed), 24*60*4, c.refused, slices.Concat(failed, []error{nil})[0])
		}
		if n := len(c.sts); n < 24 || n > 24*12 {
			t.Errorf("STS was asked %d times", n)
		}
		if n := c.hits["GET /latest/meta-data/iam/security-credentials/middle"]; n < 20 || n > 24*12 {
			t.Errorf("the metadata were asked %d times", n)
		}
	})
}

// An outage that outlasts the credentials is an error that passes.
func TestOutageOfSTS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.roles[readARN] = trustPolicy{principal: userARN}
		creds := c.user(Role{ARN: readARN}, "")
		s := c.source(using(creds))
		failed := poll(t, s, 3*time.Hour, func(minute int) {
			c.mu.Lock()
			c.stsDown = minute >= 30 && minute < 90
			c.mu.Unlock()
		})
		if len(failed) < 4*25 || len(failed) > 4*31 || c.refused != 0 {
			t.Errorf("%d calls failed, %d refused", len(failed), c.refused)
		}
		for _, err := range failed {
			if fault.KindOf(err) != fault.Temporary {
				t.Fatal(err)
			}
		}
	})
}

// A key in a file is exchanged in mid-run: the old one goes, and no call fails,
// with and without a role on top.
func TestRotationOfAStaticKey(t *testing.T) {
	for _, withRole := range []bool{false, true} {
		t.Run(fmt.Sprintf("role=%t", withRole), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.roles[readARN] = trustPolicy{principal: userARN}
				now, _ := c.issue(userARN, 0)
				reloads := 0
				creds := Credentials{
					Type: Static, AccessKeyID: now.AccessKeyID, SecretAccessKey: now.SecretAccessKey,
					Reload: func() (Keys, error) { reloads++; return now, nil },
				}
				if withRole {
					creds.Roles = []Role{{ARN: readARN}}
				}
				s := c.source(using(creds))
				failed := poll(t, s, 10*time.Hour, func(minute int) {
					if minute%85 == 40 {
						old := now
						now, _ = c.issue(userARN, 0)
						c.revoke(old.AccessKeyID)
					}
				})
				if len(failed) > 0 || reloads != 7 {
					t.Errorf("%d calls failed, %d reloads; %v", len(failed), reloads, slices.Concat(failed, []error{nil})[0])
				}
				if withRole && c.refused != 0 {
					t.Errorf("S3 refused %d", c.refused)
				}
			})
		})
	}
}

// A key that was taken back, with nothing in its place: the error says so, and
// files and processes are not asked over and over in one second.
func TestRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		k, _ := c.issue(userARN, 0)
		reloads := 0
		s := c.source(using(Credentials{
			Type: Static, AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey,
			Reload: func() (Keys, error) { reloads++; return k, nil },
		}))
		if err := calls(t.Context(), s, "list"); err != nil {
			t.Fatal(err)
		}
		c.revoke(k.AccessKeyID)
		done := make(chan error)
		for range 50 {
			go func() { done <- calls(t.Context(), s, "list") }()
		}
		for range 50 {
			if err := <-done; fault.KindOf(err) != fault.BadCredentials || !strings.Contains(fault.HintOf(err), "deleted") {
				t.Error(err)
			}
		}
		if reloads == 0 || reloads > 3 {
			t.Errorf("read again %d times", reloads)
		}
		time.Sleep(time.Minute)
		fresh, _ := c.issue(userARN, 0)
		k = fresh
		if err := calls(t.Context(), s, "list"); err != nil {
			t.Error(err)
		}
	})
}
