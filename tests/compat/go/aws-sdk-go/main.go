// The AWS SDK for Go v2: objects of all sizes, parts by its transfer manager, conditions, listings, links.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func refused(err error, code string) {
	var said smithy.APIError
	if !errors.As(err, &said) || said.ErrorCode() != code {
		panic(fmt.Sprintf("%s was expected: %v", code, err))
	}
}

func same(left, right []byte) {
	if !bytes.Equal(left, right) {
		panic("other bytes came back")
	}
}

func main() {
	ctx, endpoint, bucket := context.Background(), os.Args[1], aws.String(os.Args[2])
	client := s3.NewFromConfig(must(config.LoadDefaultConfig(ctx)), func(o *s3.Options) {
		o.BaseEndpoint, o.UsePathStyle = aws.String(endpoint), true
	})
	presigned := s3.NewPresignClient(client)
	for _, size := range []int{0, 1, 70_000, 20_000_000} {
		content, key := make([]byte, size), aws.String(fmt.Sprintf("go/ü+%d &=.bin", size))
		must(rand.Read(content))
		must(manager.NewUploader(client).Upload(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: bytes.NewReader(content), Metadata: map[string]string{"size": fmt.Sprint(size)}}))
		got := must(client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled}))
		same(must(io.ReadAll(got.Body)), content)
		if got.Metadata["size"] != fmt.Sprint(size) {
			panic("other metadata came back")
		}
		into := manager.NewWriteAtBuffer(nil)
		must(manager.NewDownloader(client).Download(ctx, into, &s3.GetObjectInput{Bucket: bucket, Key: key}))
		same(into.Bytes(), content)
		link := must(presigned.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key}))
		same(must(io.ReadAll(must(http.Get(link.URL)).Body)), content)
	}
	once := func() error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("go/once"), Body: bytes.NewReader([]byte("x")), IfNoneMatch: aws.String("*"), ChecksumAlgorithm: types.ChecksumAlgorithmSha256})
		return err
	}
	must(0, once())
	refused(once(), "PreconditionFailed")
	_, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("go/none")})
	refused(err, "NoSuchKey")

	var doomed []types.ObjectIdentifier
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("go/"), MaxKeys: aws.Int32(2)})
	for pages.HasMorePages() {
		for _, object := range must(pages.NextPage(ctx)).Contents {
			doomed = append(doomed, types.ObjectIdentifier{Key: object.Key})
		}
	}
	if len(doomed) != 5 {
		panic(fmt.Sprintf("%d objects were listed", len(doomed)))
	}
	if gone := must(client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: doomed}})); len(gone.Deleted) != 5 {
		panic("not all were deleted")
	}
}
