// The interop TestService on grpc-go, with health and reflection. Arguments: port, folder of interop.proto (compiled in), and
// for TLS the certificate and its key. It prints a line when it serves.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/golang/protobuf/ptypes/duration"
	pb "portolan/testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

type key struct{}

// Sees whether the last message of a call came compressed: it was of another size on the wire.
type watcher struct{}

func (watcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, key{}, new(int32))
}

func (watcher) HandleRPC(ctx context.Context, what stats.RPCStats) {
	if in, ok := what.(*stats.InPayload); ok {
		compressed := int32(0)
		if in.WireLength != in.Length && in.WireLength != in.Length+5 {
			compressed = 1
		}
		atomic.StoreInt32(ctx.Value(key{}).(*int32), compressed)
	}
}

func (watcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (watcher) HandleConn(context.Context, stats.ConnStats)                       {}

func asExpected(ctx context.Context, expected *pb.BoolValue) error {
	if expected != nil && expected.Value != (atomic.LoadInt32(ctx.Value(key{}).(*int32)) == 1) {
		return status.Error(codes.InvalidArgument, "not compressed as it was said")
	}
	return nil
}

func richError() error {
	said, _ := status.New(codes.ResourceExhausted, "sold out").WithDetails(
		&errdetails.ErrorInfo{Reason: "STOCKOUT", Domain: "shop.test", Metadata: map[string]string{"zone": "a"}},
		&errdetails.RetryInfo{RetryDelay: &duration.Duration{Seconds: 1, Nanos: 500000000}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name", Description: "too long"}}},
	)
	return said.Err()
}

// What is to be said before and after.
func echoed(ctx context.Context) (initial, trailing metadata.MD) {
	initial, trailing = metadata.MD{}, metadata.MD{}
	sent, _ := metadata.FromIncomingContext(ctx)
	initial.Set("x-grpc-test-echo-initial", sent.Get("x-grpc-test-echo-initial")...)
	trailing.Set("x-grpc-test-echo-trailing-bin", sent.Get("x-grpc-test-echo-trailing-bin")...)
	return initial, trailing
}

type service struct{ *pb.UnimplementedTestServiceServer }

func (service) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) { return &pb.Empty{}, nil }

func (service) UnaryCall(ctx context.Context, request *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	initial, trailing := echoed(ctx)
	_ = grpc.SendHeader(ctx, initial)
	sent, _ := metadata.FromIncomingContext(ctx)
	if deadline, ok := ctx.Deadline(); ok && len(sent.Get("x-deadline")) > 0 {
		trailing.Set("x-time-left", fmt.Sprint(time.Until(deadline).Seconds()))
	}
	_ = grpc.SetTrailer(ctx, trailing)
	if err := asExpected(ctx, request.ExpectCompressed); err != nil {
		return nil, err
	}
	if len(sent.Get("x-rich-error")) > 0 {
		return nil, richError()
	}
	if said := request.ResponseStatus; said != nil {
		return nil, status.Error(codes.Code(said.Code), said.Message)
	}
	return &pb.SimpleResponse{Payload: &pb.Payload{Body: make([]byte, request.ResponseSize)}}, nil
}

func (service) StreamingInputCall(stream pb.TestService_StreamingInputCallServer) error {
	sum := 0
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		if err := asExpected(stream.Context(), request.ExpectCompressed); err != nil {
			return err
		}
		sum += len(request.GetPayload().GetBody())
	}
}

func outputs(ctx context.Context, request *pb.StreamingOutputCallRequest, send func(*pb.StreamingOutputCallResponse) error) error {
	for _, parameters := range request.ResponseParameters {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-time.After(time.Duration(parameters.IntervalUs) * time.Microsecond):
		}
		payload := &pb.Payload{Body: make([]byte, parameters.Size)}
		if err := send(&pb.StreamingOutputCallResponse{Payload: payload}); err != nil {
			return err
		}
	}
	return nil
}

func (service) StreamingOutputCall(request *pb.StreamingOutputCallRequest, stream pb.TestService_StreamingOutputCallServer) error {
	return outputs(stream.Context(), request, stream.Send)
}

func (service) FullDuplexCall(stream pb.TestService_FullDuplexCallServer) error {
	initial, trailing := echoed(stream.Context())
	_ = stream.SendHeader(initial)
	stream.SetTrailer(trailing)
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if said := request.ResponseStatus; said != nil {
			return status.Error(codes.Code(said.Code), said.Message)
		}
		if err := outputs(stream.Context(), request, stream.Send); err != nil {
			return err
		}
	}
}

func main() {
	options := []grpc.ServerOption{grpc.StatsHandler(watcher{}), grpc.MaxRecvMsgSize(16 << 20)}
	if len(os.Args) > 4 {
		tls, err := credentials.NewServerTLSFromFile(os.Args[3], os.Args[4])
		if err != nil {
			panic(err)
		}
		options = append(options, grpc.Creds(tls))
	}
	server := grpc.NewServer(options...)
	pb.RegisterTestServiceServer(server, service{})
	checks := health.NewServer()
	checks.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_SERVING)
	checks.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, checks)
	reflection.Register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("grpc-go", grpc.Version)
	if err := server.Serve(listener); err != nil {
		panic(err)
	}
}
