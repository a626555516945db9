package bucket

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go/aws/awserr"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// UnusableError says that a bucket cannot be used, and what to do about it.
type UnusableError struct {
	Address  Address
	Text, Do string
}

func (e *UnusableError) Error() string {
	at := ""
	if e.Address.Endpoint != "" {
		at = " at " + e.Address.Endpoint
	}
	return fmt.Sprintf("%s%s cannot be used: %s; %s", e.Address, at, strings.Join(strings.Fields(e.Text), " "), e.Do)
}

func unusable(a Address, err error) error {
	code, text := codeOf(err)
	do := "look at the message"
	switch code {
	case "NoSuchBucket", "NotFound":
		do = "make the bucket, or give another one"
	case "NoCredentialProviders":
		text = "no key was given"
		do = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file of both with AWS_SHARED_CREDENTIALS_FILE"
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "ExpiredToken", "XAdminUserNotFound": // the last is versitygw's
		do = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	case "AccessDenied", "Forbidden":
		do = "let the key of AWS_ACCESS_KEY_ID list, read, write and delete in the bucket"
	case "RequestError", "RequestCanceled":
		do = "check its endpoint and the network"
	case "BucketRegionError", "AuthorizationHeaderMalformed", "PermanentRedirect", "MovedPermanently":
		do = "correct its region"
	}
	return &UnusableError{Address: a, Text: text, Do: do}
}

// codeOf is the store's code for an error, and its text.
func codeOf(err error) (code, text string) {
	// The library's error does not show errors.As what is in it.
	for {
		outer, ok := errors.AsType[storagedriver.Error](err)
		if !ok {
			break
		}
		err = outer.Detail
	}
	e, ok := errors.AsType[awserr.Error](err)
	if !ok {
		return "", err.Error()
	}
	parts := []string{e.Code()}
	if e.Message() != "" {
		parts = append(parts, e.Message())
	}
	if inner := e.OrigErr(); inner != nil {
		parts = append(parts, inner.Error())
	}
	return e.Code(), strings.Join(parts, ": ")
}
