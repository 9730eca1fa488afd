// The library of library.proto on grpc-go, and grpc-gateway before it. Arguments: the gateway's port, folder of library.proto
// (compiled in), and for TLS (and with it HTTP/2) the certificate and its key; the port of gRPC in cleartext is in GRPC_PORT.
// It prints a line when both serve.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes/duration"
	"github.com/golang/protobuf/ptypes/empty"
	"github.com/grpc-ecosystem/grpc-gateway/runtime"
	pb "portolan/library"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type library struct{}

// What arrived, or the error that was asked for by metadata.
func seen(ctx context.Context, request proto.Message) ([]byte, error) {
	sent, _ := metadata.FromIncomingContext(ctx)
	initial := metadata.Pairs("x-tenant", strings.Join(sent.Get("x-tenant"), ","),
		"x-auth", strings.Join(sent.Get("authorization"), ","))
	if deadline, ok := ctx.Deadline(); ok {
		initial.Set("x-time-left", fmt.Sprint(time.Until(deadline).Seconds()))
	}
	_ = grpc.SetHeader(ctx, initial)
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-end", "1"))
	if len(sent.Get("x-fail")) > 0 {
		said, _ := status.New(codes.ResourceExhausted, "sold out: 100% \u263a").WithDetails(
			&errdetails.RetryInfo{RetryDelay: &duration.Duration{Seconds: 1, Nanos: 500000000}})
		return nil, said.Err()
	}
	return proto.Marshal(request)
}

func book(ctx context.Context, request proto.Message) (*pb.Book, error) {
	bytes, err := seen(ctx, request)
	if err != nil {
		return nil, err
	}
	return &pb.Book{Name: "one", Kind: pb.Kind_POEMS, Pages: 1 << 60, Seen: bytes}, nil
}

func (library) Get(ctx context.Context, request *pb.GetBook) (*pb.Book, error) {
	if request.Name == "shelves/1/books/missing" {
		return nil, status.Error(codes.NotFound, "no such book")
	}
	return book(ctx, request)
}

func (library) List(ctx context.Context, request *pb.ListBooks) (*pb.Books, error) {
	bytes, err := seen(ctx, request)
	return &pb.Books{Seen: bytes}, err
}

func (library) Create(ctx context.Context, request *pb.ChangeBook) (*pb.Book, error) { return book(ctx, request) }
func (library) Update(ctx context.Context, request *pb.ChangeBook) (*pb.Book, error) { return book(ctx, request) }

func (library) Delete(ctx context.Context, request *pb.GetBook) (*empty.Empty, error) {
	_, err := seen(ctx, request)
	return &empty.Empty{}, err
}

func (library) Announce(ctx context.Context, request *pb.Publish) (*pb.Book, error) { return book(ctx, request) }

func (library) Read(ctx context.Context, request *pb.File) (*pb.Content, error) {
	one, err := book(ctx, request)
	return &pb.Content{Book: one}, err
}

func (library) Download(ctx context.Context, request *pb.File) (*httpbody.HttpBody, error) {
	_, err := seen(ctx, request)
	return &httpbody.HttpBody{ContentType: "text/x-" + request.Path, Data: []byte("\x00raw\xff")}, err
}

func (library) Upload(ctx context.Context, request *httpbody.HttpBody) (*pb.Book, error) {
	return book(ctx, request)
}

func (library) Follow(request *pb.Watch, stream pb.Library_FollowServer) error {
	for at := int32(0); at < request.Count || request.Endless; at++ {
		title := fmt.Sprint(at) + strings.Repeat("x", int(request.Size))
		if err := stream.Send(&pb.Book{Name: request.Parent, Title: title}); err != nil {
			return err
		}
	}
	if request.Code != 0 {
		return status.Error(codes.Code(request.Code), "enough")
	}
	return nil
}

func (library) Collect(stream pb.Library_CollectServer) error {
	count, titles := int64(0), ""
	for {
		change, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&pb.Book{Title: titles, Pages: count})
		}
		if err != nil {
			return err
		}
		if change.Reason == "bad" {
			return status.Error(codes.FailedPrecondition, "enough")
		}
		count++
		titles += change.Book.GetTitle()
	}
}

func (library) Chat(stream pb.Library_ChatServer) error {
	for {
		change, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(change.Book); err != nil {
			return err
		}
	}
}

func (library) Gather(stream pb.Library_GatherServer) error { return library{}.Collect(stream) }

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("GRPC_PORT"))
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	pb.RegisterLibraryServer(server, library{})
	pb.RegisterPagesServer(server, library{})
	go func() { panic(server.Serve(listener)) }()
	mux := runtime.NewServeMux()
	back, plain := listener.Addr().String(), []grpc.DialOption{grpc.WithInsecure()}
	if err := pb.RegisterLibraryHandlerFromEndpoint(context.Background(), mux, back, plain); err != nil {
		panic(err)
	}
	if err := pb.RegisterPagesHandlerFromEndpoint(context.Background(), mux, back, plain); err != nil {
		panic(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("grpc-gateway on grpc-go", grpc.Version)
	if len(os.Args) > 4 {
		panic(http.ServeTLS(front, mux, os.Args[3], os.Args[4]))
	}
	panic(http.Serve(front, mux))
}
