// A program of a user of minio-go: it does what such programs do and fails loudly where something differs.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func check(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

func main() {
	u, err := url.Parse(os.Args[1])
	check("endpoint", err)
	bucket := os.Args[2]
	ctx := context.Background()
	for _, trailing := range []bool{false, true} {
		client, err := minio.New(u.Host, &minio.Options{
			Creds:  credentials.NewStaticV4(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
			Region: "us-east-1", TrailingHeaders: trailing,
		})
		check("client", err)
		if ok, err := client.BucketExists(ctx, bucket); err != nil || !ok {
			check("make bucket", client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}))
		}
		for _, size := range []int{0, 100, 70000, 3 << 20, 40 << 20} {
			body := make([]byte, size)
			_, _ = rand.Read(body)
			key := fmt.Sprintf("go/%v/%d", trailing, size)
			_, err := client.PutObject(ctx, bucket, key, bytes.NewReader(body), int64(size), minio.PutObjectOptions{
				UserMetadata: map[string]string{"Made-By": "go"}, PartSize: 16 << 20,
			})
			check("put "+key, err)
			object, err := client.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
			check("get "+key, err)
			got, err := io.ReadAll(object)
			check("read "+key, err)
			if !bytes.Equal(got, body) {
				check(key, fmt.Errorf("other bytes came back"))
			}
			info, err := client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
			check("stat "+key, err)
			if info.Size != int64(size) || info.UserMetadata["Made-By"] != "go" {
				check(key, fmt.Errorf("stat says %+v", info))
			}
		}
		_, err = client.CopyObject(ctx, minio.CopyDestOptions{Bucket: bucket, Object: "copy"}, minio.CopySrcOptions{Bucket: bucket, Object: fmt.Sprintf("go/%v/70000", trailing)})
		check("copy", err)
		shared, err := client.PresignedGetObject(ctx, bucket, "copy", time.Minute, nil)
		check("presign", err)
		fmt.Println(shared)
		count := 0
		for object := range client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
			check("list", object.Err)
			count++
		}
		if count != 6 {
			check("list", fmt.Errorf("%d objects", count))
		}
		for object := range client.ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
			check("remove", client.RemoveObject(ctx, bucket, object.Key, minio.RemoveObjectOptions{}))
		}
	}
	check("remove bucket", client(u).RemoveBucket(ctx, bucket))
	fmt.Println("done")
}

func client(u *url.URL) *minio.Client {
	made, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""), Region: "us-east-1"})
	check("client", err)
	return made
}
