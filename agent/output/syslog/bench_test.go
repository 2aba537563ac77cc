package syslog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
)

// BenchmarkSend sends batches of 500 records of 1,400 bytes to a receiver in the
// same process, acknowledged as soon as each transport can tell.
func BenchmarkSend(b *testing.B) {
	ca, err := receivertest.NewCA()
	if err != nil {
		b.Fatal(err)
	}
	caFile := filepath.Join(b.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		b.Fatal(err)
	}
	records := outputtest.Numbered("n", 500)
	for i := range records {
		records[i].Raw = []byte(`{"x":"` + strings.Repeat("y", 1400) + `"}`)
	}
	bt := batch(records)
	for _, transport := range []Transport{TCP, TLS, RELP, RELPTLS} {
		b.Run(string(transport), func(b *testing.B) {
			cfg := receivertest.SyslogConfig{RELP: transport == RELP || transport == RELPTLS}
			if transport == TLS || transport == RELPTLS {
				cfg.CA = ca
			}
			in, err := receivertest.NewSyslog(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = in.Close() }()
			o, err := New(Config{Transport: transport, Addresses: []string{in.Addr()}, TLS: tlsconf.Config{CAFile: caFile}})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = o.Close() }()
			b.SetBytes(int64(bt.Bytes))
			b.ReportAllocs()
			for b.Loop() {
				if err := o.Send(b.Context(), bt); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(len(records))/b.Elapsed().Seconds(), "records/s")
		})
	}
}
