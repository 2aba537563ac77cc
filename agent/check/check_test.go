package check

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/s3source"
	"github.com/trailpoll/trailpoll/installer/aws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// way is a source that answers nothing: each call waits for its end.
type way struct{ calls *[]string }

func (w way) wait(ctx context.Context, call string) error {
	*w.calls = append(*w.calls, call)
	<-ctx.Done()
	return &fault.Error{Op: call, Err: ctx.Err()}
}

func (w way) Endpoints() []s3source.Endpoint {
	return []s3source.Endpoint{{Service: "S3", URL: "https://s3"}}
}

func (w way) Reach(ctx context.Context, _ s3source.Endpoint) (time.Time, error) {
	return time.Time{}, w.wait(ctx, "reach")
}

func (w way) Steps(ctx context.Context) []s3source.Step {
	return []s3source.Step{{Name: "ec2-role", Err: w.wait(ctx, "steps")}}
}

func (w way) Head(ctx context.Context) (s3source.BucketInfo, error) {
	return s3source.BucketInfo{}, w.wait(ctx, "head")
}

func (w way) List(ctx context.Context, _ listing.Request) (listing.Page, error) {
	return listing.Page{}, w.wait(ctx, "list")
}

func (w way) Inspect(ctx context.Context, _ string) (s3source.ObjectFacts, error) {
	return s3source.ObjectFacts{}, w.wait(ctx, "inspect")
}

func (w way) Get(ctx context.Context, _, _ string) (listing.Body, error) {
	return listing.Body{}, w.wait(ctx, "get")
}

// Where nobody answers, each step takes its time and no longer, says so, and
// says what to do.
func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		w := way{&calls}
		p := Plan{
			StepTimeout: 5 * time.Second,
			State:       StateDir{Path: t.TempDir()},
			Sources:     []Source{{Name: "s", Bucket: "b", Way: w, Store: w}},
			Outputs:     []Output{{Name: "o", Type: "https", To: "https://siem", Sources: 1, Receiver: silent1{w}}},
		}
		began := time.Now()
		var steps []Step
		if p.Run(t.Context(), func(s Step) { steps = append(steps, s) }) {
			t.Error("nothing is wrong")
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		for _, s := range steps {
			if s.State == Failed && (!strings.Contains(s.Answer, "deadline exceeded") || s.Remedy == "") {
				t.Errorf("%+v", s)
			}
		}
		states := map[string]State{}
		for _, s := range steps {
			states[s.Source+s.Output+" "+s.Name] = s.State
		}
		for name, want := range map[string]State{" state-dir": OK, "s reach": Failed, "s clock": Skipped, "s credentials": Failed, "s list": Skipped, "o reach": Failed, "o send": Skipped} {
			if states[name] != want {
				t.Errorf("%s is %q, want %q", name, states[name], want)
			}
		}
	})
}

type silent1 struct{ way }

// Reach has a list of its own, since outputs are tried beside sources.
func (s silent1) Reach(ctx context.Context) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

// Who calls it off does not wait, and it is not the network's fault.
func TestCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		w := way{&calls}
		p := Plan{State: StateDir{Path: t.TempDir()}, Sources: []Source{{Name: "s", Bucket: "b", Way: w, Store: w}}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		p.Run(ctx, func(s Step) {
			if strings.Contains(s.Answer, "no answer in") {
				t.Errorf("%+v", s)
			}
		})
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Each way in which AWS says that it refuses has its own remedy.
func TestRefused(t *testing.T) {
	setup := aws.Setup{Partition: "aws-us-gov", Bucket: "b", Prefix: "p", Reader: "arn:aws-us-gov:iam::111122223333:role/r"}
	plain := &Source{RequesterPays: true}
	for _, v := range verdicts {
		for _, r := range []right{toList, toGet, toDecrypt} {
			err := &fault.Error{Kind: fault.Denied, Err: errors.New("AccessDenied: User: x is not authorized to perform: " + r.action + " because " + v.says + " the action")}
			if got := plain.refused(err, &setup, r); !strings.Contains(got, v.means) || !strings.Contains(got, r.action) || strings.Contains(got, `"Sid"`) {
				t.Errorf("%s, %s:\n%s", v.says, r.action, got)
			}
		}
	}
	for _, tt := range []struct {
		text string
		r    right
		want []string
	}{
		{"Access Denied", toList, []string{"policy of " + setup.Reader, `"Action": "s3:ListBucket"`, `"arn:aws-us-gov:s3:::b"`}},
		{"Access Denied", toGet, []string{`"Action": "s3:GetObject"`, `"arn:aws-us-gov:s3:::b/p/AWSLogs/*"`}},
		{"no resource-based policy allows the s3:GetObject action", toGet, []string{"policy of the bucket", `"AWS": "` + setup.Reader}},
		{"kms:Decrypt", toDecrypt, []string{"arn:aws-us-gov:kms:REGION:ACCOUNT:key/KEY-ID", "policy of the key"}},
		{"kms:Decrypt on resource: arn:aws-us-gov:kms:us-gov-west-1:1:key/k.", toDecrypt, []string{`"arn:aws-us-gov:kms:us-gov-west-1:1:key/k"`}},
		{"KMS.NotFoundException: Key 'arn:aws-us-gov:kms:us-gov-west-1:1:key/k' does not exist", toDecrypt, []string{"The key arn:aws-us-gov:kms:us-gov-west-1:1:key/k can't be used by anybody"}},
	} {
		kind := fault.Denied
		if tt.r == toDecrypt {
			kind = fault.KMSDenied
		}
		got := plain.refused(&fault.Error{Kind: kind, Err: errors.New(tt.text)}, &setup, tt.r)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", tt.text, want, got)
			}
		}
	}
	if got := plain.refused(&fault.Error{Kind: fault.Throttled, Hint: "wait"}, &setup, toList); got != "wait" {
		t.Errorf("another kind's hint is %q", got)
	}
}

// Policies name the role, not its session.
func TestReader(t *testing.T) {
	for arn, want := range map[string]string{
		"":                                 "",
		"arn:aws:iam::111122223333:user/u": "arn:aws:iam::111122223333:user/u",
		"arn:aws-cn:sts::111122223333:assumed-role/r/session": "arn:aws-cn:iam::111122223333:role/r",
		"arn:aws:sts::111122223333:federated-user/u":          "arn:aws:sts::111122223333:federated-user/u",
		"arn:aws:iam::111122223333:root":                      "arn:aws:iam::111122223333:root",
	} {
		if got := reader(s3source.Identity{ARN: arn}); got != want {
			t.Errorf("%s: %s, want %s", arn, got, want)
		}
	}
}

// Whoever writes to the bucket writes no line of the report, and no order to
// the terminal.
func TestInvariant11_Names(t *testing.T) {
	evil := "x\x1b[2J\n  ✓ get  all is well\u202e/"
	x := &part{plan: &Plan{}, ctx: t.Context()}
	x.ok("list", evil, evil+"\xff")
	if s := x.steps[0]; strings.ContainsAny(s.Tried+s.Answer, "\x1b\u202e") || !utf8.ValidString(s.Answer) {
		t.Errorf("%q", s)
	}
	for _, names := range [][]string{{evil}, {"a/", "b/", evil, "c/", "d/", evil}} {
		if got := strings.Join(short(names), ", "); strings.ContainsAny(got, "\n\x1b") || strings.Contains(got, "1 more") != (len(names) == 6) {
			t.Errorf("%q", got)
		}
	}
	if got := short([]string{"AWSLogs/"}); got[0] != "AWSLogs/" {
		t.Errorf("%q", got)
	}
}
