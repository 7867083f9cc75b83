// Command grpc_server serves a plugin's function over gRPC, for the benchmarks: /bench/Process takes a record,
// /bench/ProcessLines a chunk of lines. Messages are the bytes themselves, without protobuf around them, which is the
// least that gRPC can cost. /bench/Items takes "COUNT BYTES" and streams so many items.
//
//	grpc_server LIBRARY PLUGIN CONFIG    prints its port, then serves until it is ended
package main

/*
#cgo CFLAGS: -O2 -I${SRCDIR}/../../native_sdk/include
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "plugin.h"
*/
import "C"

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// raw passes messages on as they are.
type raw struct{}

func (raw) Name() string { return "raw" }

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = data
	return nil
}

type server struct {
	lock   sync.Mutex // the plugin is serial
	plugin *C.plugin
}

func (s *server) call(in []byte, lines C.int32_t) (*[]byte, error) {
	var out *C.uint8_t
	var size C.size_t
	if len(in) == 0 {
		return nil, status.Error(codes.InvalidArgument, "an empty message")
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	code := C.plugin_call(s.plugin, lines, (*C.uint8_t)(unsafe.Pointer(&in[0])), C.size_t(len(in)), &out, &size)
	if code != 0 {
		return nil, status.Errorf(codes.InvalidArgument, "the plugin answered %d", int(code))
	}
	answer := C.GoBytes(unsafe.Pointer(out), C.int(size))
	return &answer, nil
}

func handler(lines C.int32_t) grpc.MethodHandler {
	return func(srv any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in []byte
		if err := decode(&in); err != nil {
			return nil, err
		}
		return srv.(*server).call(in, lines)
	}
}

func items(_ any, stream grpc.ServerStream) error {
	var in []byte
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	var count, size int
	if _, err := fmt.Sscan(string(in), &count, &size); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	item := bytes.Repeat([]byte("x"), size)
	for ; count > 0; count-- {
		if err := stream.SendMsg(&item); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: grpc_server LIBRARY PLUGIN CONFIG")
		os.Exit(2)
	}
	library, name, config := C.CString(os.Args[1]), C.CString(os.Args[2]), C.CString(os.Args[3])
	made := &server{plugin: C.plugin_make(library, name, config)}
	if made.plugin == nil {
		os.Exit(1)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	serving := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20))
	serving.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Process", Handler: handler(0)},
			{MethodName: "ProcessLines", Handler: handler(1)},
		},
		Streams: []grpc.StreamDesc{{StreamName: "Items", Handler: items, ServerStreams: true}},
	}, made)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := serving.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
