// grpc-go's own binary log: `binlog read FILE` says what is in one, `binlog write FILE ADDRESS` makes calls that are written to
// one.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/ioutil"
	"os"
	"strings"

	testing "portolan/testing"

	"github.com/golang/protobuf/proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/binarylog"
	pb "google.golang.org/grpc/binarylog/grpc_binarylog_v1"
	"google.golang.org/grpc/metadata"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func read(name string) {
	file, err := os.Open(name)
	must(err)
	for {
		var length uint32
		err := binary.Read(file, binary.BigEndian, &length)
		if err == io.EOF {
			return
		}
		must(err)
		bytes := make([]byte, length)
		_, err = io.ReadFull(file, bytes)
		must(err)
		entry := &pb.GrpcLogEntry{}
		must(proto.Unmarshal(bytes, entry))
		if len(entry.XXX_unrecognized) > 0 || entry.Timestamp.GetSeconds() == 0 {
			panic(entry.String())
		}
		entry.Timestamp = nil
		fmt.Println(proto.CompactTextString(entry))
	}
}

// Where the sink writes: it has a name of its own in /tmp, and tells nobody.
func written() string {
	open, err := ioutil.ReadDir("/proc/self/fd")
	must(err)
	for _, one := range open {
		name, err := os.Readlink("/proc/self/fd/" + one.Name())
		if err == nil && strings.Contains(name, "grpcgo_binarylog_") {
			return name
		}
	}
	panic("no file is open")
}

func write(path, address string) {
	sink, err := binarylog.NewTempFileSink()
	must(err)
	temporary := written()
	defer os.Remove(temporary)
	binarylog.SetSink(sink)
	connection, err := grpc.Dial(address, grpc.WithInsecure(), grpc.WithBlock())
	must(err)
	client := testing.NewTestServiceClient(connection)
	outgoing := metadata.AppendToOutgoingContext(context.Background(), "x-grpc-test-echo-initial", "said", "x-grpc-test-echo-trailing-bin", "\x00\xff")
	payload := &testing.Payload{Body: []byte("from go")}
	_, err = client.UnaryCall(outgoing, &testing.SimpleRequest{ResponseSize: 5, Payload: payload})
	must(err)
	_, err = client.UnaryCall(outgoing, &testing.SimpleRequest{ResponseStatus: &testing.EchoStatus{Code: 2, Message: "no \u263a"}})
	if err == nil {
		panic("a good status")
	}
	stream, err := client.FullDuplexCall(context.Background())
	must(err)
	for _, size := range []int32{1, 2} {
		must(stream.Send(&testing.StreamingOutputCallRequest{ResponseParameters: []*testing.ResponseParameters{{Size: size}}}))
		_, err := stream.Recv()
		must(err)
	}
	must(stream.CloseSend())
	if _, err := stream.Recv(); err != io.EOF {
		panic(err)
	}
	must(sink.Close())
	bytes, err := ioutil.ReadFile(temporary)
	must(err)
	must(ioutil.WriteFile(path, bytes, 0600))
}

func main() {
	if os.Args[1] == "read" {
		read(os.Args[2])
	} else {
		write(os.Args[2], os.Args[3])
	}
}
