package s3source

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	// aheadOf is how long before their end credentials are exchanged. EC2 has
	// new ones at least five minutes before the old ones end ("Retrieve
	// security credentials from instance metadata", EC2 User Guide).
	aheadOf = 5 * time.Minute
	// againAfter is the pause after an exchange that brought nothing new.
	againAfter = 30 * time.Second
)

// keeper keeps credentials and exchanges them before they end. While one caller
// fetches new ones the others go on with the old, and so do all if that fails,
// for as long as the old are valid: the SDK's own cache would let them wait,
// and fail. Safe for concurrent use.
type keeper struct {
	fetch func(context.Context) (aws.Credentials, error)

	mu      sync.Mutex
	have    aws.Credentials // without keys: none
	refresh time.Time       // when to look for the next, if they end
	asking  *fetching       // nil unless somebody is fetching
}

// fetching is one attempt to fetch credentials, for all who wait.
type fetching struct {
	done chan struct{}
	err  error
}

var (
	errExpired = errors.New("the credentials have expired already")
	errNoKeys  = errors.New("the answer holds no access key")
)

// valid reports whether what is kept can be used.
func (k *keeper) valid(now time.Time) bool {
	return k.have.HasKeys() && (!k.have.CanExpire || now.Before(k.have.Expires))
}

// Retrieve implements aws.CredentialsProvider.
func (k *keeper) Retrieve(ctx context.Context) (aws.Credentials, error) {
	for {
		k.mu.Lock()
		now := time.Now()
		valid := k.valid(now)
		if valid && (!k.have.CanExpire || now.Before(k.refresh) || k.asking != nil) {
			defer k.mu.Unlock()
			return k.have, nil
		}
		a := k.asking
		if a == nil {
			a = &fetching{done: make(chan struct{})}
			k.asking = a
			k.mu.Unlock()
			return k.exchange(ctx, a)
		}
		k.mu.Unlock()

		select {
		case <-a.done:
		case <-ctx.Done():
			return aws.Credentials{}, ctx.Err()
		}
		if a.err != nil && !isContext(a.err) {
			return aws.Credentials{}, a.err
		}
		// Fetched, or whoever fetched gave up: see again.
	}
}

// exchange fetches credentials and ends the attempt.
func (k *keeper) exchange(ctx context.Context, a *fetching) (aws.Credentials, error) {
	got, err := k.fetch(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if err == nil {
		switch {
		case !got.HasKeys():
			err = errNoKeys
		case got.CanExpire && !now.Before(got.Expires):
			err = errExpired
		}
	}
	switch {
	case err == nil:
		k.have = got
		k.refresh = got.Expires.Add(-min(aheadOf, got.Expires.Sub(now)/3))
		if least := now.Add(againAfter); k.refresh.Before(least) {
			k.refresh = least
		}
	case k.valid(now):
		k.refresh, err = now.Add(againAfter), nil
	}
	k.asking = nil
	a.err = err
	close(a.done)
	if err != nil {
		return aws.Credentials{}, err
	}
	return k.have, nil
}

// forget lets go of what is kept, if it is still what was used: AWS has refused
// it.
func (k *keeper) forget(used aws.Credentials) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if sameKeys(k.have, used) {
		k.have = aws.Credentials{}
	}
}

// sameKeys reports whether both sign alike.
func sameKeys(a, b aws.Credentials) bool {
	return a.AccessKeyID == b.AccessKeyID && a.SecretAccessKey == b.SecretAccessKey && a.SessionToken == b.SessionToken
}
