//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/klauspost/compress/gzip"
)

// Check against policies that a real server applies, by a user who has nothing
// but what the bucket's policy grants.
func TestE2E_CheckPolicies(t *testing.T) {
	b := newBucket(t)
	const user = "trailpoll-reader"
	b.server.stranger(t, user, wrongSecret)
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	_, _ = z.Write([]byte(`{"Records":[{"eventID":"a"},{"eventID":"b"}]}`))
	_ = z.Close()
	stamp := time.Now().UTC().Add(-10 * time.Minute)
	b.put(t, fmt.Sprintf("AWSLogs/111122223333/CloudTrail/us-east-1/%s/111122223333_CloudTrail_us-east-1_%s_AAAABBBBCCCCDDDD.json.gz",
		stamp.Format("2006/01/02"), stamp.Format("20060102T1504Z")), body.Bytes())

	list := fmt.Sprintf(`{"Effect":"Allow","Principal":{"AWS":[%q]},"Action":"s3:ListBucket","Resource":"arn:aws:s3:::%s"}`, user, b.name)
	get := fmt.Sprintf(`{"Effect":"Allow","Principal":{"AWS":[%q]},"Action":"s3:GetObject","Resource":"arn:aws:s3:::%s/AWSLogs/*"}`, user, b.name)
	for _, tt := range []struct {
		name       string
		statements []string
		region     string
		secret     string
		code       int
		step       string
		remedy     string
	}{
		{"nothing is granted", nil, homeRegion, "TRAILPOLL_E2E_WRONG", 3, "list", `"Sid": "ListLogs"`},
		{"no List", []string{get}, homeRegion, "TRAILPOLL_E2E_WRONG", 3, "list", `"Sid": "ListLogs"`},
		{"no Get", []string{list}, homeRegion, "TRAILPOLL_E2E_WRONG", 3, "get", `"Sid": "GetLogs"`},
		{"another's secret", []string{list, get}, homeRegion, secretInEnv, 3, "list", "secret access key is not that of the access key"},
		{"another region", []string{list, get}, "eu-west-1", "TRAILPOLL_E2E_WRONG", 3, "list", `region`},
		{"what check asks for", []string{list, get}, homeRegion, "TRAILPOLL_E2E_WRONG", 0, "", ""},
	} {
		if len(tt.statements) == 0 {
			_, _ = b.client.DeleteBucketPolicy(t.Context(), &s3.DeleteBucketPolicyInput{Bucket: &b.name})
		} else {
			policy := `{"Version":"2012-10-17","Statement":[` + strings.Join(tt.statements, ",") + `]}`
			if _, err := b.client.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: &b.name, Policy: &policy}); err != nil {
				t.Fatal(err)
			}
		}
		text := strings.NewReplacer(`"`+accessKey+`"`, `"`+user+`"`, "env:"+secretInEnv, "env:"+tt.secret, `region = "`+homeRegion, `region = "`+tt.region).Replace(source("trail", b, "", ""))
		s := newSettings(t, "", text, "[[output]]\nname = \"out\"\ntype = \"stdout\"\n")
		c := s.start(t, "check", "--json")
		code := c.wait(time.Minute)
		var report struct {
			Steps []struct{ Name, State, Answer, Remedy string } `json:"steps"`
		}
		if err := json.Unmarshal(c.Stdout.Bytes(), &report); err != nil {
			t.Fatalf("%s: %v\n%s", tt.name, err, c.Stdout.Bytes())
		}
		found := tt.step == ""
		for _, st := range report.Steps {
			if st.State == "failed" && st.Name == tt.step && strings.Contains(st.Remedy, tt.remedy) {
				found = true
			}
		}
		if code != tt.code || !found {
			t.Errorf("%s: exit %d, want %d and a step %s that says %s\n%+v", tt.name, code, tt.code, tt.step, tt.remedy, report.Steps)
		}
	}
}
