//go:build hec

package main

import (
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/ackextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/splunkhecreceiver"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"
)

// receive adds the receiver of Splunk HEC and its acknowledgements.
func receive(f *otelcol.Factories) (err error) {
	if f.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](splunkhecreceiver.NewFactory()); err != nil {
		return err
	}
	f.Extensions, err = otelcol.MakeFactoryMap[extension.Factory](ackextension.NewFactory())
	return err
}
