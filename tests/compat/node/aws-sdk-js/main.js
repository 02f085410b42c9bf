// The AWS SDK for JavaScript v3: objects of all sizes, parts by lib-storage, conditions, listings, links.
import assert from "node:assert";
import { randomBytes } from "node:crypto";
import { DeleteObjectsCommand, GetObjectCommand, PutObjectCommand, S3Client, paginateListObjectsV2 } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const [endpoint, Bucket] = process.argv.slice(2);
const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true });

for (const size of [0, 1, 70_000, 20_000_000]) {
  const content = randomBytes(size), Key = `js/ü+${size} &=.bin`;
  await new Upload({ client, params: { Bucket, Key, Body: content, Metadata: { size: `${size}` } } }).done();
  const got = await client.send(new GetObjectCommand({ Bucket, Key, ChecksumMode: "ENABLED" }));
  assert(content.equals(await got.Body.transformToByteArray()));
  assert.equal(got.Metadata.size, `${size}`);
  const link = await fetch(await getSignedUrl(client, new GetObjectCommand({ Bucket, Key })));
  assert(content.equals(Buffer.from(await link.arrayBuffer())));
}
const once = () => client.send(new PutObjectCommand({ Bucket, Key: "js/once", Body: "x", IfNoneMatch: "*", ChecksumAlgorithm: "SHA256" }));
await once();
await assert.rejects(once, { name: "PreconditionFailed" });
await assert.rejects(() => client.send(new GetObjectCommand({ Bucket, Key: "js/none" })), { name: "NoSuchKey" });

const Objects = [];
for await (const page of paginateListObjectsV2({ client, pageSize: 2 }, { Bucket, Prefix: "js/" })) {
  Objects.push(...page.Contents.map(({ Key }) => ({ Key })));
}
assert.equal(Objects.length, 5);
assert.equal((await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }))).Deleted.length, 5);
