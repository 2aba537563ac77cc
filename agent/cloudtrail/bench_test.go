package cloudtrail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/record"
)

// sampleRecord makes a record with the members, the order and about the size
// (1.5 KB) of CloudTrail's own.
func sampleRecord(i int) string {
	r := rand.New(rand.NewPCG(uint64(i), 7))
	id := fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Int64N(1<<48))
	return `{"eventVersion":"1.08","userIdentity":{"type":"AssumedRole","principalId":"AROAEXAMPLEID:session-` + id[:4] +
		`","arn":"arn:aws:sts::111122223333:assumed-role/app-role/session-` + id[:4] + `","accountId":"111122223333",` +
		`"accessKeyId":"ASIAIOSFODNN7EXAMPLE","sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROAEXAMPLEID",` +
		`"arn":"arn:aws:iam::111122223333:role/app-role","accountId":"111122223333","userName":"app-role"},` +
		`"webIdFederationData":{},"attributes":{"creationDate":"2023-07-10T11:40:02Z","mfaAuthenticated":"false"}}},` +
		`"eventTime":"2023-07-10T12:11:15Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"us-east-1",` +
		`"sourceIPAddress":"192.0.2.17","userAgent":"[aws-sdk-java/1.12.1 Linux/5.10 OpenJDK_64-Bit_Server_VM/11.0.19+7-LTS]",` +
		`"requestParameters":{"bucketName":"example-bucket","Host":"example-bucket.s3.us-east-1.amazonaws.com","key":"data/` + id +
		`\u003dpart-0001.parquet"},"responseElements":null,"additionalEventData":{"SignatureVersion":"SigV4",` +
		`"CipherSuite":"ECDHE-RSA-AES128-GCM-SHA256","bytesTransferredIn":0.0,"AuthenticationMethod":"AuthHeader",` +
		`"x-amz-id-2":"k0zYw3kPZ1m6vXkq3Hn4QbWmX7S5qk0n2Vq0VxkYc5oJkS2+8mQv2Gk=","bytesTransferredOut":12288.0},` +
		`"requestID":"` + id[9:13] + `EXAMPLE0001","eventID":"` + id + `","readOnly":true,"resources":[{"type":"AWS::S3::Object",` +
		`"ARN":"arn:aws:s3:::example-bucket/data/` + id + `"},{"accountId":"111122223333","type":"AWS::S3::Bucket",` +
		`"ARN":"arn:aws:s3:::example-bucket"}],"eventType":"AwsApiCall","managementEvent":false,` +
		`"recipientAccountId":"111122223333","eventCategory":"Data"}`
}

// sampleObject makes an inflated object of n records.
func sampleObject(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"Records":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(sampleRecord(i))
	}
	b.WriteString(`]}`)
	return []byte(b.String())
}

// deflate packs data as CloudTrail does.
func deflate(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, 6)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

const benchRecords = 2000

func BenchmarkSplit(b *testing.B) {
	data := sampleObject(benchRecords)
	begin := func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
	}
	b.Run("bytes", func(b *testing.B) {
		begin(b)
		var s Splitter
		for b.Loop() {
			s.Reset(data, 1<<20)
			countRecords(b, &s)
		}
	})
	b.Run("reader", func(b *testing.B) {
		begin(b)
		var s Splitter
		r := bytes.NewReader(nil)
		for b.Loop() {
			r.Reset(data)
			s.ResetReader(r, 1<<20)
			countRecords(b, &s)
		}
	})
	b.Run("fill", func(b *testing.B) {
		begin(b)
		var s Splitter
		buf := make([]byte, 0, 512<<10)
		recs := make([]record.Record, 0, 1024)
		for b.Loop() {
			s.Reset(data, 1<<20)
			n := 0
			for {
				_, got, err := s.Fill(buf, recs)
				n += len(got)
				if errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
			if n != benchRecords {
				b.Fatal(n)
			}
		}
	})
	b.Run("jsontext", func(b *testing.B) {
		begin(b)
		r := bytes.NewReader(nil)
		d := jsontext.NewDecoder(r)
		for b.Loop() {
			r.Reset(data)
			d.Reset(r, jsontext.AllowDuplicateNames(true))
			for range 3 { // { "Records" [
				if _, err := d.ReadToken(); err != nil {
					b.Fatal(err)
				}
			}
			n := 0
			for ; d.PeekKind() == '{'; n++ {
				if _, err := d.ReadValue(); err != nil {
					b.Fatal(err)
				}
			}
			if n != benchRecords {
				b.Fatal(n)
			}
		}
	})
	b.Run("rawmessage", func(b *testing.B) {
		begin(b)
		for b.Loop() {
			var envelope struct{ Records []json.RawMessage }
			if err := json.Unmarshal(data, &envelope); err != nil {
				b.Fatal(err)
			}
			if len(envelope.Records) != benchRecords {
				b.Fatal(len(envelope.Records))
			}
		}
	})
}

func countRecords(b *testing.B, s *Splitter) {
	n := 0
	for {
		r, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			b.Fatal(err)
		}
		if len(r.EventID) != 36 || len(r.EventTime) != 20 {
			b.Fatal(r.Index)
		}
		n++
	}
	if n != benchRecords {
		b.Fatal(n)
	}
}

func BenchmarkInflate(b *testing.B) {
	data := sampleObject(benchRecords)
	packed := deflate(data)
	lim := Limits{MaxRecord: 1 << 20, Hold: 16 << 20, Stored: int64(len(packed))}
	begin := func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
	}
	r := bytes.NewReader(nil)
	b.Run("hold", func(b *testing.B) {
		begin(b)
		var f Inflater
		var dst []byte
		for b.Loop() {
			r.Reset(packed)
			var err error
			if dst, err = f.Inflate(dst, r, lim); err != nil || len(dst) != len(data) {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		begin(b)
		var f Inflater
		for b.Loop() {
			r.Reset(packed)
			if n, err := f.Verify(r, lim); err != nil || n != int64(len(data)) {
				b.Fatal(err)
			}
		}
	})
	b.Run("hold+split", func(b *testing.B) {
		begin(b)
		var f Inflater
		var s Splitter
		var dst []byte
		for b.Loop() {
			r.Reset(packed)
			var err error
			if dst, err = f.Inflate(dst, r, lim); err != nil {
				b.Fatal(err)
			}
			s.Reset(dst, lim.MaxRecord)
			countRecords(b, &s)
		}
	})
	b.Run("gzip", func(b *testing.B) { // nothing but klauspost's gzip
		begin(b)
		var z gzip.Reader
		dst := make([]byte, len(data))
		for b.Loop() {
			r.Reset(packed)
			if err := z.Reset(r); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(&z, dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParsePosition(b *testing.B) {
	k, class := parse("", "AWSLogs/111122223333/CloudTrail/us-east-1/2023/07/10/111122223333_CloudTrail_us-east-1_20230710T1220Z_WMiHxZgr5Hdd6UDc.json.gz")
	if class != Log {
		b.Fatal(class)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, class := ParsePosition(k.Stream, k.Position); class != Log {
			b.Fatal(class)
		}
	}
}
